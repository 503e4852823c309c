"""Tables of the store. What differs from one release to the next is in `migrations/versions`, and here as it is now.

Every row belongs to a monitor, so that many monitors share one store; a monitor alone writes its rows, but for
requests, which anybody writes. Clocks are set back: what came first has the lower `number`, whatever its time. Windows,
messages, history and requests have numbers of their own; models, sensors, alarms and evidence those of their monitor.
"""

from __future__ import annotations

import sqlalchemy as sa

from harken.service.store.columns import UtcTime

METADATA = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


def _monitor() -> sa.Column[str]:
    return sa.Column("monitor", sa.Text, primary_key=True)


#: last_number: of its messages. stopped, stopped_by: when and by what it was stopped in order; empty while it runs.
#: hours_since: `hours` has all from then on; empty: all. last_record: grows with each record that has its number, and
#: with each change of a machine
monitors = sa.Table(
    "monitors",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("last_number", sa.BigInteger, nullable=False),
    sa.Column("seen", UtcTime, nullable=False),
    sa.Column("stopped", UtcTime),
    sa.Column("stopped_by", sa.Text),
    sa.Column("hours_since", UtcTime),
    sa.Column("last_record", sa.BigInteger, nullable=False, default=0),
)
#: which process is a monitor, see `harken.service.store.lease`. place: computer and number of the process. term: grows
#: with each takeover; renewals: with each transaction of the process
leases = sa.Table(
    "leases",
    METADATA,
    _monitor(),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("process", sa.Text, nullable=False),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("since", UtcTime, nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("term", sa.BigInteger, nullable=False),
    sa.Column("renewals", sa.BigInteger, nullable=False),
)
#: state: memory of alarms, JSON
machines = sa.Table(
    "machines",
    METADATA,
    _monitor(),
    sa.Column("machine", sa.Text, primary_key=True),
    sa.Column("state", sa.JSON, nullable=False),
    sa.Column("changed", UtcTime, nullable=False),
)
models = sa.Table(
    "models",
    METADATA,
    _monitor(),
    sa.Column("machine", sa.Text, primary_key=True),
    sa.Column("since", UtcTime, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("threshold", sa.Double),
    sa.Column("sentences", sa.JSON, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
)
#: see `harken.service.model_versions`. counted: JSON, empty where it was not
versions = sa.Table(
    "versions",
    METADATA,
    _monitor(),
    sa.Column("machine", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("made", UtcTime),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("target", sa.BigInteger),
    sa.Column("recordings", sa.BigInteger, nullable=False),
    sa.Column("added", sa.BigInteger, nullable=False),
    sa.Column("forced", sa.Boolean, nullable=False),
    sa.Column("in_use", sa.Boolean, nullable=False),
    sa.Column("counted", sa.JSON, nullable=False),
)
windows = sa.Table(
    "windows",
    METADATA,
    _monitor(),
    sa.Column("machine", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("start", UtcTime, nullable=False),
    sa.Column("end", UtcTime, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("event_score", sa.Double),
    sa.Column("p_value", sa.Double),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("alarm", sa.Text, nullable=False),
    sa.Index(None, "monitor", "machine", "start"),
)
#: see `harken.service.kept_features`. period: `minute` or `hour` whose only one it is; size: bytes of data
features = sa.Table(
    "features",
    METADATA,
    _monitor(),
    sa.Column("machine", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("start", UtcTime, nullable=False),
    sa.Column("end", UtcTime, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("alarm", sa.Text, nullable=False),
    sa.Column("notable", sa.Boolean, nullable=False),
    sa.Column("period", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Index(None, "monitor", "machine", "start"),
    # All that thinning looks at: rows are large.
    sa.Index("ix_features_thinning", "monitor", "notable", "period", "start", "machine", "size"),
)
#: scores of windows thinned with age: per `minute`, `hour` or `day`. not_judged: windows without a score
thinned = sa.Table(
    "thinned",
    METADATA,
    _monitor(),
    sa.Column("machine", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("start", UtcTime, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("not_judged", sa.BigInteger, nullable=False),
    sa.Column("minimum", sa.Double),
    sa.Column("mean", sa.Double),
    sa.Column("maximum", sa.Double),
)
#: sums over the windows that begin in an hour, as in `thinned`
hours = sa.Table(
    "hours",
    METADATA,
    _monitor(),
    sa.Column("machine", sa.Text, primary_key=True),
    sa.Column("start", UtcTime, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("not_judged", sa.BigInteger, nullable=False),
    sa.Column("minimum", sa.Double),
    sa.Column("mean", sa.Double),
    sa.Column("maximum", sa.Double),
)
sensors = sa.Table(
    "sensors",
    METADATA,
    _monitor(),
    sa.Column("sensor", sa.Text, primary_key=True),
    sa.Column("since", UtcTime, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Index(None, "monitor", "sensor", "number"),
)
alarms = sa.Table(
    "alarms",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("monitor", sa.Text, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("onset", UtcTime, nullable=False),
    sa.Column("raised", UtcTime, nullable=False),
    sa.Column("ended", UtcTime),
    sa.Column("acknowledged", UtcTime),
    sa.Column("acknowledged_by", sa.Text, nullable=False),
    sa.Column("annunciated", sa.Boolean, nullable=False),
    sa.Column("windows", sa.BigInteger, nullable=False),
    sa.Column("highest", sa.Double),
    sa.Column("sentence", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Index(None, "monitor", "machine", "number"),
)
history = sa.Table(
    "history",
    METADATA,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("monitor", sa.Text, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("alarm", sa.Text, nullable=False),
    sa.Index(None, "monitor", "machine", "time"),
)
evidence = sa.Table(
    "evidence",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("monitor", sa.Text, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("alarm", sa.Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sound", sa.Text, nullable=False),
    sa.Column("picture", sa.Text, nullable=False),
    sa.Column("sentence", sa.Text, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Index(None, "monitor", "machine", "number"),
)
#: what sentences were made of (`core.sentences`), by their text in other tables, so that they are said in any language
sentences = sa.Table(
    "sentences",
    METADATA,
    sa.Column("text", sa.Text, primary_key=True),
    sa.Column("parts", sa.JSON, nullable=False),
)
#: where sources are taken up again
resume = sa.Table(
    "resume",
    METADATA,
    _monitor(),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("token", sa.JSON, nullable=False),
)
#: answer: None until it is done
requests = sa.Table(
    "requests",
    METADATA,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("monitor", sa.Text, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("demand", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("until", UtcTime),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("alarm", sa.Text, nullable=False),
    sa.Column("since", UtcTime),
    sa.Column("version", sa.BigInteger),
    sa.Column("force", sa.Boolean, nullable=False),
    sa.Column("answer", sa.Text),
    sa.Index(None, "monitor", "answer"),
)
messages = sa.Table(
    "messages",
    METADATA,
    _monitor(),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
)
#: position: number of the last message that the sink has
sinks = sa.Table(
    "sinks",
    METADATA,
    _monitor(),
    sa.Column("sink", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("delivered", UtcTime),
    sa.Column("refused", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.BigInteger, nullable=False),
    sa.Column("next_try", UtcTime),
    sa.Column("problem", sa.Text, nullable=False),
)

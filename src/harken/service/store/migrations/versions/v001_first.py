"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from harken.service.store.columns import UtcTime

revision, down_revision, branch_labels, depends_on = "001", None, None, None

#: numbers that the database gives
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "monitors",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("last_number", sa.BigInteger, nullable=False),
        sa.Column("seen", UtcTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_monitors"),
    )
    op.create_table(
        "machines",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("changed", UtcTime, nullable=False),
        sa.PrimaryKeyConstraint("monitor", "machine", name="pk_machines"),
    )
    op.create_table(
        "models",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("since", UtcTime, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("threshold", sa.Double),
        sa.Column("sentences", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("monitor", "machine", "since", name="pk_models"),
    )
    op.create_table(
        "windows",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
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
        sa.PrimaryKeyConstraint("monitor", "machine", "number", name="pk_windows"),
    )
    op.create_index("ix_windows_monitor_machine_start", "windows", ["monitor", "machine", "start"])
    op.create_table(
        "thinned",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("start", UtcTime, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("not_judged", sa.BigInteger, nullable=False),
        sa.Column("minimum", sa.Double),
        sa.Column("mean", sa.Double),
        sa.Column("maximum", sa.Double),
        sa.PrimaryKeyConstraint("monitor", "machine", "period", "start", name="pk_thinned"),
    )
    op.create_table(
        "sensors",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("sensor", sa.Text, nullable=False),
        sa.Column("since", UtcTime, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("monitor", "sensor", "since", name="pk_sensors"),
    )
    op.create_table(
        "alarms",
        sa.Column("id", sa.Text, nullable=False),
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
        sa.PrimaryKeyConstraint("id", name="pk_alarms"),
    )
    op.create_index("ix_alarms_monitor_machine_raised", "alarms", ["monitor", "machine", "raised"])
    op.create_table(
        "history",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("alarm", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_history"),
    )
    op.create_index("ix_history_monitor_machine_time", "history", ["monitor", "machine", "time"])
    op.create_table(
        "evidence",
        sa.Column("id", sa.Text, nullable=False),
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
        sa.PrimaryKeyConstraint("id", name="pk_evidence"),
    )
    op.create_index("ix_evidence_monitor_time", "evidence", ["monitor", "time"])
    op.create_table(
        "resume",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("token", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("monitor", "key", name="pk_resume"),
    )
    op.create_table(
        "requests",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("demand", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("until", UtcTime),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.PrimaryKeyConstraint("number", name="pk_requests"),
    )
    op.create_index("ix_requests_monitor_answer", "requests", ["monitor", "answer"])
    op.create_table(
        "messages",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("monitor", "number", name="pk_messages"),
        sa.UniqueConstraint("id", name="uq_messages_id"),
    )
    op.create_table(
        "sinks",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("delivered", UtcTime),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("next_try", UtcTime),
        sa.Column("problem", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("monitor", "sink", name="pk_sinks"),
    )


def downgrade() -> None:
    """To nothing."""
    for table in (
        "monitors",
        "machines",
        "models",
        "windows",
        "thinned",
        "sensors",
        "alarms",
        "history",
        "evidence",
        "resume",
        "requests",
        "messages",
        "sinks",
    ):
        op.drop_table(table)

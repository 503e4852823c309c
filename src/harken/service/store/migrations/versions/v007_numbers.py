"""Numbers of records, in the order in which they came, whatever clocks say."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "007", "006", None, None

#: table -> its key, the column of the machine, and that by which it was ordered
_TABLES = {
    "models": (("monitor", "machine", "since"), "machine", "since"),
    "sensors": (("monitor", "sensor", "since"), "sensor", "since"),
    "alarms": (("id",), "machine", "raised"),
    "evidence": (("id",), "machine", "time"),
}


def upgrade() -> None:
    """From the sixth tables: what is there is numbered by its times."""
    connection = op.get_bind()
    zero = sa.text("0")
    op.add_column("monitors", sa.Column("last_record", sa.BigInteger, nullable=False, server_default=zero))
    for table, (key, machine, time) in _TABLES.items():
        op.add_column(table, sa.Column("number", sa.BigInteger, nullable=False, server_default=zero))
        _number(connection, table, key, time)
        last = f"SELECT COALESCE(MAX(number), 0) FROM {table} WHERE {table}.monitor = monitors.name"
        greater = f"UPDATE monitors SET last_record = ({last}) WHERE last_record < ({last})"
        connection.execute(sa.text(greater))
        if table != "models":
            op.create_index(f"ix_{table}_monitor_{machine}_number", table, ["monitor", machine, "number"])
    op.drop_index("ix_alarms_monitor_machine_raised", "alarms")
    op.drop_index("ix_evidence_monitor_time", "evidence")


def _number(connection: sa.Connection, table: str, key: tuple[str, ...], time: str) -> None:
    """Number the rows of each monitor from 1 by their times; UPDATE ... FROM would need SQLite 3.33."""
    names = ", ".join(dict.fromkeys(("monitor", *key)))
    numbers: Counter[str] = Counter()
    rows = []
    for row in connection.execute(sa.text(f"SELECT {names} FROM {table} ORDER BY monitor, {time}")).mappings():
        numbers[row["monitor"]] += 1
        rows.append({**{name: row[name] for name in key}, "place": numbers[row["monitor"]]})
    if rows:
        same = " AND ".join(f"{name} = :{name}" for name in key)
        connection.execute(sa.text(f"UPDATE {table} SET number = :place WHERE {same}"), rows)


def downgrade() -> None:
    """To the sixth tables."""
    op.create_index("ix_evidence_monitor_time", "evidence", ["monitor", "time"])
    op.create_index("ix_alarms_monitor_machine_raised", "alarms", ["monitor", "machine", "raised"])
    for table, (_, machine, _) in _TABLES.items():
        if table != "models":
            op.drop_index(f"ix_{table}_monitor_{machine}_number", table)
        op.drop_column(table, "number")
    op.drop_column("monitors", "last_record")

"""When and by what a monitor was stopped, and sums of scores per hour."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from harken.service.store.columns import UtcTime

revision, down_revision, branch_labels, depends_on = "005", "004", None, None

#: beginning of the hour of a time
_HOUR = {"sqlite": "substr(start, 1, 13) || ':00:00.000000'", "postgresql": "date_trunc('hour', start, 'UTC')"}
_SUMS = """
INSERT INTO hours (monitor, machine, start, count, not_judged, minimum, mean, maximum)
SELECT monitor, machine, hour, SUM(count), SUM(not_judged), MIN(minimum),
       SUM(mean * count) / NULLIF(SUM(count), 0), MAX(maximum)
FROM (
    SELECT monitor, machine, {hour} AS hour, COUNT(score) AS count, COUNT(*) - COUNT(score) AS not_judged,
           MIN(score) AS minimum, AVG(score) AS mean, MAX(score) AS maximum
    FROM windows GROUP BY 1, 2, 3
    UNION ALL
    SELECT monitor, machine, {hour} AS hour, SUM(count), SUM(not_judged), MIN(minimum),
           SUM(mean * count) / NULLIF(SUM(count), 0), MAX(maximum)
    FROM thinned WHERE period IN ('minute', 'hour') GROUP BY 1, 2, 3
) AS sums GROUP BY 1, 2, 3
"""


def sums_of(dialect: str) -> str:
    """The statement that sums up all windows, and minutes and hours of what was thinned, per hour."""
    return _SUMS.format(hour=_HOUR[dialect])


def upgrade() -> None:
    """From the fourth tables; hours are summed up from what is there."""
    op.add_column("monitors", sa.Column("stopped", UtcTime))
    op.add_column("monitors", sa.Column("stopped_by", sa.Text))
    op.add_column("monitors", sa.Column("hours_since", UtcTime))
    op.create_table(
        "hours",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("start", UtcTime, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("not_judged", sa.BigInteger, nullable=False),
        sa.Column("minimum", sa.Double),
        sa.Column("mean", sa.Double),
        sa.Column("maximum", sa.Double),
        sa.PrimaryKeyConstraint("monitor", "machine", "start", name="pk_hours"),
    )
    connection = op.get_bind()
    connection.execute(sa.text(sums_of(connection.dialect.name)))


def downgrade() -> None:
    """To the fourth tables."""
    op.drop_table("hours")
    for name in ("hours_since", "stopped_by", "stopped"):
        op.drop_column("monitors", name)

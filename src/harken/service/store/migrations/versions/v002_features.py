"""Features of windows, from which models learn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from harken.service.store.columns import UtcTime

revision, down_revision, branch_labels, depends_on = "002", "001", None, None


def upgrade() -> None:
    """From the first tables."""
    op.create_table(
        "features",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
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
        sa.PrimaryKeyConstraint("monitor", "machine", "number", name="pk_features"),
    )
    op.create_index("ix_features_monitor_machine_start", "features", ["monitor", "machine", "start"])
    op.create_index("ix_features_thinning", "features", ["monitor", "notable", "period", "start", "machine", "size"])


def downgrade() -> None:
    """To the first tables."""
    op.drop_table("features")

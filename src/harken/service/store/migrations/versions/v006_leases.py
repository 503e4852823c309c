"""Which process is a monitor."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from harken.service.store.columns import UtcTime

revision, down_revision, branch_labels, depends_on = "006", "005", None, None


def upgrade() -> None:
    """From the fifth tables."""
    op.create_table(
        "leases",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("since", UtcTime, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("renewals", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("monitor", name="pk_leases"),
    )


def downgrade() -> None:
    """To the fifth tables."""
    op.drop_table("leases")

"""Requests to learn, and the versions of models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from harken.service.store.columns import UtcTime

revision, down_revision, branch_labels, depends_on = "003", "002", None, None


def upgrade() -> None:
    """From the second tables."""
    op.add_column("requests", sa.Column("alarm", sa.Text, nullable=False, server_default=""))
    op.add_column("requests", sa.Column("since", UtcTime))
    op.add_column("requests", sa.Column("version", sa.BigInteger))
    op.add_column("requests", sa.Column("force", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "versions",
        sa.Column("monitor", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
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
        sa.PrimaryKeyConstraint("monitor", "machine", "number", name="pk_versions"),
    )


def downgrade() -> None:
    """To the second tables."""
    op.drop_table("versions")
    for column in ("alarm", "since", "version", "force"):
        op.drop_column("requests", column)

"""What sentences were made of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "004", "003", None, None


def upgrade() -> None:
    """From the third tables."""
    op.create_table(
        "sentences",
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("parts", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("text", name="pk_sentences"),
    )


def downgrade() -> None:
    """To the third tables."""
    op.drop_table("sentences")

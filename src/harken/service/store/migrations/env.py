"""Run by alembic within the transaction of `harken.service.store.migrate`."""

from __future__ import annotations

from alembic import context

from harken.service.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite changes few columns in place
)
with context.begin_transaction():
    context.run_migrations()

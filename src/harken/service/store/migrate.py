"""Tables of an older release are brought to those of this one when a store is opened, once, whoever comes first."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, Engine

from harken.core.errors import HarkenError
from harken.service.store.engine import reading

#: key of the lock that one migrating process has in PostgreSQL
_LOCK_KEY = 0x4841524B


def migrate(engine: Engine, shown: str) -> None:
    """Bring the tables up to date, in one transaction; a killed or a second process leaves the whole or nothing.

    shown: the store's name in errors. Raises HarkenError for a store that a newer release wrote.
    """
    script = ScriptDirectory.from_config(_config())
    with reading(engine) as connection:
        if _version(connection) == script.get_current_head():
            return
    with engine.begin() as connection, ExitStack() as limits:
        if connection.dialect.name == "postgresql":
            from harken.service.store.postgres import unlimited

            # A table of years is changed in minutes, and another process waits for it.
            limits.enter_context(unlimited(connection))
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        version = _version(connection)
        if version is not None and version not in {revision.revision for revision in script.walk_revisions()}:
            raise HarkenError(
                f"was written by a newer release (tables {version})", file=shown, next_step="Install that release"
            )
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()

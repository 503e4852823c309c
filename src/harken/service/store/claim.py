"""That one process alone is the monitor of a name in a PostgreSQL store, whichever computers they run on."""

from __future__ import annotations

import hashlib
import logging
import time

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from harken.core.errors import HarkenError

log = logging.getLogger(__name__)

#: seconds after which a connection whose other end has vanished is given up by the server, see `engine.make_engine`,
#: and a process that asks again may have it
PATIENCE_S = 13.0
#: seconds between two tries
_AGAIN_S = 0.25


class TakenError(HarkenError):
    """Another process is this monitor."""


class BusyError(HarkenError):
    """Another process is this monitor, or was it a moment ago and its connection is not yet given up."""


class Claim:
    """A session-level advisory lock of PostgreSQL, held as long as its connection is there; of SQLite none is needed,
    see `assembly.alone`. One thread at a time may use it.

    monitor: its name. place: of the store, in errors.
    """

    def __init__(self, engine: Engine, monitor: str, place: str) -> None:
        self._engine, self._monitor, self._place = engine, monitor, place
        #: of the lock; it says which schema the store is in, once that has been asked
        self._key = 0
        self._connection: Connection | None = None
        self._refused_since: float | None = None

    def hold(self, *, wait: bool = False) -> None:
        """Return while this process alone has the name. wait: until that is decided.

        Raises TakenError where another has had it for `PATIENCE_S`, before that BusyError; DBAPIError where the
        database cannot be reached.
        """
        if self._engine.dialect.name != "postgresql":
            return
        while not (self._holds() or self._acquires()):
            now = time.monotonic()
            if self._refused_since is None:
                self._refused_since = now
                log.info("store: another process is the monitor %s; waiting for its end", self._monitor)
            if now - self._refused_since >= PATIENCE_S:
                raise TakenError(
                    f"is in use by another process that is the monitor {self._monitor}{self._whose()}",
                    file=self._place,
                    next_step="Stop that one, or give this one another name (monitor: in the file of --config)",
                )
            if not wait:
                raise BusyError(
                    f"is in use by another process that is the monitor {self._monitor}",
                    file=self._place,
                    next_step="Nothing: it is seen within seconds whether that process has ended",
                )
            time.sleep(_AGAIN_S)
        self._refused_since = None

    def close(self) -> None:
        """Give the name up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not to the pool: the lock belongs to the session.
            connection.invalidate()
            connection.close()

    def _holds(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except DBAPIError:
            self.close()
            return False
        return True

    def _acquires(self) -> bool:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        schema = connection.scalar(sa.select(sa.func.current_schema()))
        digest = hashlib.sha256(f"harken monitor {schema} {self._monitor}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        if connection.scalar(sa.select(sa.func.pg_try_advisory_lock(self._key))):
            self._connection = connection
            return True
        connection.close()
        return False

    def _whose(self) -> str:
        """Where the other process is, and since when, as far as the database tells."""
        query = sa.text(
            "SELECT host(activity.client_addr), activity.backend_start FROM pg_locks AS locks "
            "JOIN pg_stat_activity AS activity USING (pid) WHERE locks.locktype = 'advisory' AND locks.granted "
            "AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND ((locks.classid::bigint << 32) | locks.objid::bigint) = :key AND locks.objsubid = 1"
        )
        with self._engine.connect() as connection:
            row = connection.execute(query, {"key": self._key}).first()
        if row is None or row[1] is None:
            return ""
        return f" ({f'at {row[0]}, ' if row[0] else ''}since {row[1]:%Y-%m-%d %H:%M} UTC)"

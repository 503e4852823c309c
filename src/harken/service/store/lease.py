"""That one process alone is the monitor of a name in a store that several computers share.

The process has a row, and renews it with each of its transactions, which fail where the row is another's: what one
writes that has lost the name is not stored. No session of the database is held, so that connections may be cut, kept
open by a proxy, or shared by a pooler; and no clock is compared with another: who waits for the name sees by its own
monotonic clock for how long nobody has renewed the row, while the database could be reached.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, Row

from harken.core.errors import HarkenError
from harken.service.store import tables
from harken.service.store.engine import insert_into

log = logging.getLogger(__name__)

#: seconds without a renewal after which another process takes the name over; a monitor that runs renews it every 10 s
EXPIRES_S = 30.0
#: seconds between two looks of one that waits
_AGAIN_S = 0.25
#: most seconds between two looks: in a longer gap the database may have been out of reach for the other one, too
_GAP_S = 5.0
#: renewals seen by one that waits which show that the other one runs; a single one may be the last of a process that
#: has ended, and come late
_RENEWALS = 2


class TakenError(HarkenError):
    """Another process is this monitor."""


class BusyError(HarkenError):
    """Another process is this monitor, or was it a moment ago."""


class LostError(HarkenError):
    """The row is not this process's any more: nothing was written."""


class Lease:
    """The name of a monitor, held by one process. One thread at a time may `hold` it.

    monitor: its name. place: of the store, in errors. owner: one that has the same is known to have ended, and its name
    is taken over at once.
    """

    def __init__(
        self,
        engine: Engine,
        monitor: str,
        place: str,
        owner: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._monitor, self._place, self._clock = engine, monitor, place, clock
        self._process = uuid.uuid4().hex
        self._owner = owner or self._process
        #: takeover by which this process has the name; 0: it never had it
        self._term = 0
        self._holds = False
        #: of another process: (term, renewals) when first seen, and those seen last, since when these, and when last
        self._first: tuple[int, int] | None = None
        self._last: tuple[int, int] | None = None
        self._unchanged_since = self._looked = 0.0

    @property
    def used(self) -> bool:
        """Whether this process has had the name: what it writes is written with `renew`."""
        return self._term > 0

    def hold(self, *, wait: bool = False) -> None:
        """Return while this process alone has the name. wait: until that is decided.

        Raises TakenError where another runs or has taken over; before that is known, BusyError; DBAPIError where the
        database cannot be reached.
        """
        while not self._holds:
            with self._engine.begin() as connection:
                taken = self._acquire(connection)
            if isinstance(taken, int):
                # Only now: where the commit fails, the name may still be that of the other one.
                self._term, self._holds, self._first = taken, True, None
                return
            busy = f"is in use by another process that is the monitor {self._monitor}"
            if self.used or self._runs(taken):
                raise TakenError(
                    f"{busy} (at {taken.place}, since {taken.since:%Y-%m-%d %H:%M} UTC)",
                    file=self._place,
                    next_step="Stop that one, or give this one another name (monitor: in the file of --config)",
                )
            if not wait:
                raise BusyError(
                    busy, file=self._place, next_step="Nothing: it is seen within seconds whether it has ended"
                )
            time.sleep(_AGAIN_S)

    def renew(self, connection: Connection) -> None:
        """Show, as the first in a transaction, that the process runs; until the end of the transaction the name stays
        with it. Raises LostError where another has it."""
        columns = tables.leases.c
        of_process = (columns.monitor == self._monitor) & (columns.process == self._process) & columns.held
        query = sa.update(tables.leases).where(of_process).values(renewals=columns.renewals + 1)
        if not connection.execute(query).rowcount:
            self._holds = False
            cause = f"another process has become the monitor {self._monitor}"
            raise LostError(cause, file=self._place, next_step="Nothing: it is seen at once which one")

    def release(self, connection: Connection) -> None:
        """Leave the name to whoever comes next; it stays with another that has it."""
        columns = tables.leases.c
        of_process = (columns.monitor == self._monitor) & (columns.process == self._process)
        connection.execute(sa.update(tables.leases).where(of_process).values(held=False))
        self._holds = False

    def _acquire(self, connection: Connection) -> int | Row[Any]:
        """Have the row from the commit on, and return its term; or return the row of the process which has it."""
        columns = tables.leases.c
        values = {
            "owner": self._owner,
            "process": self._process,
            "place": f"{socket.gethostname()}, process {os.getpid()}",
            "since": sa.func.current_timestamp(),
            "held": True,
            "renewals": 0,
        }
        first = {"monitor": self._monitor, "term": self._term + 1, **values}
        query = insert_into(connection, tables.leases).values(first).on_conflict_do_nothing()
        if connection.execute(query.execution_options(preserve_rowcount=True)).rowcount:
            return self._term + 1
        row = connection.execute(
            sa.select(tables.leases).where(columns.monitor == self._monitor).with_for_update()
        ).one()
        # A copy of the database that took its place may be older than this process's term.
        free = row.term < self._term if self.used else not row.held or row.owner == self._owner or self._expired(row)
        # Its own, where a commit was done and the answer got lost.
        if not (free or row.process == self._process):
            return row
        term = max(row.term, self._term) + 1
        connection.execute(sa.update(tables.leases).where(columns.monitor == self._monitor).values(term=term, **values))
        if row.held and not self.used and row.process != self._process:
            log.info("store: the process that was the monitor %s (at %s) has ended", self._monitor, row.place)
        return term

    def _expired(self, row: Row[Any]) -> bool:
        """Whether the row has not changed for long enough, as far as this process has seen."""
        seen, now = (row.term, row.renewals), self._clock()
        if self._first is None:
            self._first = seen
            log.info("store: another process is the monitor %s (at %s); waiting for its end", self._monitor, row.place)
        if seen != self._last or now - self._looked > _GAP_S:
            self._last, self._unchanged_since = seen, now
        self._looked = now
        return now - self._unchanged_since >= EXPIRES_S

    def _runs(self, row: Row[Any]) -> bool:
        """Whether the process of the row was seen to renew it."""
        assert self._first is not None
        return row.term > self._first[0] or row.renewals >= self._first[1] + _RENEWALS

"""Whether a monitor runs, by what it has left in the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from harken.service.store import tables

#: a monitor without anything else to store shows after so many seconds that it is running
SIGN_S = 10.0
#: one that has left out so many of its signs does not run, as after a loss of power
_SIGNS = 3
#: by how much the clock of a monitor may be ahead of that of a computer which looks at it
_AHEAD = timedelta(minutes=10)


@dataclass(frozen=True)
class Running:
    """monitor: its name. seen: when it last wrote something. stopped, stopped_by: when and by what it was stopped."""

    monitor: str
    seen: datetime
    stopped: datetime | None = None
    stopped_by: str = ""

    def runs(self, now: datetime) -> bool:
        """Whether it was not stopped, and its last sign is not too long ago. One from the far future is an old one:
        the clock was set back, and nothing has come since. Clocks of two computers may differ by less."""
        return self.stopped is None and -_AHEAD < now - self.seen < timedelta(seconds=_SIGNS * SIGN_S)


def running(connection: Connection, monitor: str | None = None) -> list[Running]:
    """Monitors of the store, in order of their names. monitor: of that alone."""
    columns = tables.monitors.c
    query = sa.select(columns.name, columns.seen, columns.stopped, columns.stopped_by).order_by(columns.name)
    if monitor is not None:
        query = query.where(columns.name == monitor)
    return [Running(row.name, row.seen, row.stopped, row.stopped_by or "") for row in connection.execute(query)]

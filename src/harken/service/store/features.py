"""Features of windows in the store: read, thinned with age, and kept within a number of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from harken.service.kept_features import WindowFeatures
from harken.service.store import tables

#: whether notable, period of which one is kept, age from which it is so
THINNED = (
    (False, "minute", timedelta(minutes=1), timedelta(days=1)),
    (False, "hour", timedelta(hours=1), timedelta(days=30)),
    (True, "minute", timedelta(minutes=1), timedelta(days=30)),
    (True, "hour", timedelta(hours=1), timedelta(days=180)),
)
#: share of the bytes of a machine that ordinary windows keep, however many notable ones there are
_ORDINARY_SHARE = 0.25
#: rows of a pass, which others wait for
_ROWS = 1_000
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_FIELDS = (
    "machine", "number", "start", "end", "spec", "sha256", "kind", "score", "alarm", "notable",
)  # fmt: skip


@dataclass(frozen=True)
class FeatureLimits:
    """How much is kept. quota: bytes of all machines of a monitor, each of which has the same share; 0: nothing.

    age: of the oldest.
    """

    quota: int = 500 * 10**6
    age: timedelta = timedelta(days=365)


def kept_windows(
    connection: Connection,
    monitor: str,
    machine: str,
    spec: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    alarm: str = "",
) -> list[WindowFeatures]:
    """Windows of a machine that begin in [since, until), as they were heard, without their data (`with_data`).

    alarm: those from the first that begins at `since` or later to the last that this alarm was on in, as they were
    heard, where there are any, whatever the clock did meanwhile; without `since`, from the first that it was on in.
    """
    columns = tables.features.c
    chosen = (columns.monitor == monitor) & (columns.machine == machine) & (columns.spec == spec)
    chosen &= _span(connection, chosen, since, until, alarm)
    query = sa.select(*(columns[name] for name in _FIELDS)).where(chosen).order_by(columns.number)
    return [WindowFeatures(**row._mapping) for row in connection.execute(query)]


def count_kept(
    connection: Connection,
    monitor: str,
    machine: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    alarm: str = "",
) -> int:
    """How many windows `kept_windows` gives, of any features."""
    columns = tables.features.c
    chosen = (columns.monitor == monitor) & (columns.machine == machine)
    chosen &= _span(connection, chosen, since, until, alarm)
    return int(connection.scalar(sa.select(sa.func.count()).select_from(tables.features).where(chosen)) or 0)


def _span(
    connection: Connection,
    chosen: sa.ColumnElement[bool],
    since: datetime | None,
    until: datetime | None,
    alarm: str,
) -> sa.ColumnElement[bool]:
    """Which of the chosen windows are meant, see `kept_windows`."""
    columns = tables.features.c
    if alarm:
        of_alarm = sa.select(sa.func.min(columns.number), sa.func.max(columns.number)).where(chosen)
        first, last = connection.execute(of_alarm.where(columns.alarm == alarm)).one()
        if last is not None:
            if since is not None:
                earlier = chosen & (columns.number <= first) & (columns.start < since)
                before = connection.scalar(sa.select(sa.func.max(columns.number)).where(earlier))
                first = 0 if before is None else before + 1
            return columns.number.between(first, last)
    span: sa.ColumnElement[bool] = sa.true()
    if since is not None:
        span &= columns.start >= since
    if until is not None:
        span &= columns.start < until
    return span


def with_data(
    connection: Connection, monitor: str, windows: list[WindowFeatures], together: int = 200
) -> Iterator[WindowFeatures]:
    """The same windows with their data, but for those that have gone meanwhile."""
    columns = tables.features.c
    for first in range(0, len(windows), together):
        some = {window.number: window for window in windows[first : first + together]}
        machine = windows[first].machine
        query = sa.select(*(columns[name] for name in _FIELDS), columns.data).where(
            columns.monitor == monitor, columns.machine == machine, columns.number.in_(list(some))
        )
        for row in connection.execute(query.order_by(columns.number)):
            yield WindowFeatures(**row._mapping)


def thin_features(connection: Connection, monitor: str, now: datetime, limits: FeatureLimits) -> bool:
    """One pass over the features of a monitor; whether there may be more to do.

    Of ordinary windows one per minute is kept after a day, one per hour after a month; of notable ones, after a month
    and half a year. Where they are too many bytes all the same, the oldest ordinary ones go first, until they have a
    quarter of what is left to the machine, then the oldest notable ones.
    """
    more = [_thin(connection, monitor, now, *thinned) for thinned in THINNED]
    columns = tables.features.c
    old = (columns.monitor == monitor) & (columns.start < now - limits.age)
    more.append(_remove(connection, _oldest(connection, old), None))
    query = (
        sa.select(columns.machine, columns.notable, sa.func.sum(columns.size).label("size"))
        .where(columns.monitor == monitor)
        .group_by(columns.machine, columns.notable)
    )
    sizes: dict[str, dict[bool, int]] = {}
    for row in connection.execute(query):
        sizes.setdefault(row.machine, {False: 0, True: 0})[bool(row.notable)] = int(row.size)
    share = limits.quota // max(1, len(sizes))
    for machine, size in sizes.items():
        excess = size[False] + size[True] - share
        if excess <= 0:
            continue
        guaranteed = _ORDINARY_SHARE * share if size[True] else 0.0
        ordinary = size[False] > guaranteed
        of_machine = (columns.monitor == monitor) & (columns.machine == machine)
        kind = columns.notable == sa.literal(not ordinary)
        size_gone = min(excess, size[False] - guaranteed) if ordinary else excess
        _remove(connection, _oldest(connection, of_machine & kind), size_gone)
        more.append(True)
    return any(more)


def _thin(
    connection: Connection, monitor: str, now: datetime, notable: bool, period: str, length: timedelta, age: timedelta
) -> bool:
    """Keep the first window of each period, of the oldest for which that is not done yet."""
    columns = tables.features.c
    cutoff = _begin(now - age, length)
    finer = ("", "minute")[period == "hour"]
    chosen = (columns.monitor == monitor) & (columns.notable == sa.literal(notable)) & (columns.period == finer)
    rows = _oldest(connection, chosen & (columns.start < cutoff))
    full = len(rows) == _ROWS
    last = _begin(rows[-1].start, length) if full else cutoff
    # The last period may go on beyond this pass.
    rows = [row for row in rows if _begin(row.start, length) < last] or rows
    kept: list[Row[Any]] = []
    gone: list[Row[Any]] = []
    seen: set[tuple[str, str, datetime]] = set()
    for row in rows:
        of = (row.machine, row.spec, _begin(row.start, length))
        (gone if of in seen else kept).append(row)
        seen.add(of)
    if kept:
        connection.execute(sa.update(tables.features).where(_are(monitor, kept)).values(period=period))
    _remove(connection, gone, None)
    return full


def _oldest(connection: Connection, chosen: sa.ColumnElement[bool]) -> list[Row[Any]]:
    columns = tables.features.c
    query = sa.select(columns.monitor, columns.machine, columns.number, columns.start, columns.spec, columns.size)
    return list(connection.execute(query.where(chosen).order_by(columns.start).limit(_ROWS)))


def _remove(connection: Connection, rows: list[Row[Any]], size: float | None) -> bool:
    """Remove rows, in their order until they are `size` bytes; whether there may be more of the kind."""
    removed, freed = [], 0
    for row in rows:
        if size is not None and freed >= size:
            break
        removed.append(row)
        freed += row.size
    if removed:
        connection.execute(sa.delete(tables.features).where(_are(removed[0].monitor, removed)))
    return len(removed) == _ROWS


def _are(monitor: str, rows: list[Row[Any]]) -> sa.ColumnElement[bool]:
    columns = tables.features.c
    keys = [(row.machine, row.number) for row in rows]
    return (columns.monitor == monitor) & sa.tuple_(columns.machine, columns.number).in_(keys)


def _begin(time: datetime, length: timedelta) -> datetime:
    """Beginning of the period that a time is in."""
    return time - (time - _EPOCH) % length

"""Scores over time as the store holds them, in equal periods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from harken.service.store import tables
from harken.service.store.columns import UtcTime
from harken.service.store.rows import of_machine

#: what the page shows at once, and the length of a period in it
SPANS: dict[str, tuple[timedelta, timedelta]] = {
    "day": (timedelta(days=1), timedelta(minutes=5)),
    "week": (timedelta(days=7), timedelta(hours=1)),
    "month": (timedelta(days=31), timedelta(hours=4)),
    "year": (timedelta(days=366), timedelta(days=1)),
}
#: periods of `tables.thinned` -> length of the text by which SQLite groups them
_GROUPS = {"minute": 16, "hour": 13, "day": 10}


def _within(table: sa.Table) -> sa.ColumnElement[bool]:
    """Rows of a machine and a time, whose values are bound where the query is asked."""
    return of_machine(table) & (table.c.start >= sa.bindparam("since")) & (table.c.start < sa.bindparam("until"))


# Queries are made once: for many machines, making them takes longer than the answer.
_SUMMED = sa.select(tables.monitors.c.hours_since).where(tables.monitors.c.name == sa.bindparam("monitor"))
_HOURS = sa.select(
    *(tables.hours.c[name] for name in ("start", "count", "not_judged", "minimum", "mean", "maximum"))
).where(_within(tables.hours))


@dataclass
class Period:
    """Scores of the windows that begin within a period. Where there is none with a score, they are None.

    not_judged: windows without a score.
    """

    start: datetime
    count: int = 0
    not_judged: int = 0
    minimum: float | None = None
    mean: float | None = None
    maximum: float | None = None

    def add(
        self, count: int, not_judged: int, minimum: float | None, mean: float | None, maximum: float | None
    ) -> None:
        """Count further windows."""
        self.not_judged += not_judged
        if not count or minimum is None or mean is None or maximum is None:
            return
        self.mean = mean if self.mean is None else (self.mean * self.count + mean * count) / (self.count + count)
        self.minimum = minimum if self.minimum is None else min(self.minimum, minimum)
        self.maximum = maximum if self.maximum is None else max(self.maximum, maximum)
        self.count += count


def periods(
    connection: Connection, monitor: str, machine: str, since: datetime, until: datetime, length: timedelta
) -> list[Period]:
    """The periods from `since` to `until` in which windows were heard, in order.

    They begin at multiples of `length` since 1970, UTC. What was thinned counts in the period in which it begins.
    """
    by_number: dict[int, Period] = {}
    seconds = length.total_seconds()
    rows: Iterator[tuple[Any, ...]]
    if length % timedelta(hours=1):
        rows = _grouped(connection, monitor, machine, since, until, length)
    else:
        rows = _of_hours(connection, monitor, machine, since, until, length)
    for start, *values in rows:
        number = int(start.timestamp() // seconds)
        if number not in by_number:
            by_number[number] = Period(datetime.fromtimestamp(number * seconds, UTC))
        by_number[number].add(*values)
    return [by_number[number] for number in sorted(by_number)]


def _of_hours(
    connection: Connection, monitor: str, machine: str, since: datetime, until: datetime, length: timedelta
) -> Iterator[tuple[Any, ...]]:
    """From sums per hour, as far as there are, and before that from windows and what was thinned.

    An hour that `since` or `until` lie in is read window by window.
    """
    summed = connection.scalar(_SUMMED, {"monitor": monitor})
    begin = max(_next_hour(since), summed or since)
    end = max(begin, until.replace(minute=0, second=0, microsecond=0))
    for some_since, some_until in ((since, min(begin, until)), (end, until)):
        if some_since < some_until:
            yield from _grouped(connection, monitor, machine, some_since, some_until, length)
    values = {"monitor": monitor, "machine": machine, "since": begin, "until": end}
    yield from (tuple(row) for row in connection.execute(_HOURS, values))


def _next_hour(time: datetime) -> datetime:
    """The first full hour from a time on."""
    hour = time.replace(minute=0, second=0, microsecond=0)
    return hour if hour == time else hour + timedelta(hours=1)


def _grouped(
    connection: Connection, monitor: str, machine: str, since: datetime, until: datetime, length: timedelta
) -> Iterator[tuple[Any, ...]]:
    """Windows and what was thinned, by minute, hour or day: grouped in the database, so that few rows come."""
    unit = "day" if length >= timedelta(days=1) else "hour" if length >= timedelta(hours=1) else "minute"
    values = {"monitor": monitor, "machine": machine, "since": since, "until": until}
    for query in _grouping(connection.dialect.name, unit):
        for begin, count, *others in connection.execute(query, values):
            # Sums of whole numbers are decimals in PostgreSQL.
            yield begin, int(count or 0), int(others[0] or 0), *others[1:]


@lru_cache
def _grouping(dialect: str, unit: str) -> list[sa.Select[Any]]:
    """Queries of windows and of what was thinned, by minute, hour or day."""
    queries = []
    windows, thinned = tables.windows.c, tables.thinned.c
    judged = sa.func.count(windows.score)
    all_judged = sa.func.sum(thinned.count)
    values = {
        tables.windows: (
            judged, sa.func.count() - judged, sa.func.min(windows.score), sa.func.avg(windows.score),
            sa.func.max(windows.score),
        ),
        tables.thinned: (
            all_judged, sa.func.sum(thinned.not_judged), sa.func.min(thinned.minimum),
            sa.func.sum(thinned.mean * thinned.count) / sa.func.nullif(all_judged, 0), sa.func.max(thinned.maximum),
        ),
    }  # fmt: skip
    for table, numbers in values.items():
        start = table.c.start
        group: sa.ColumnElement[Any]
        if dialect == "postgresql":
            group = sa.func.date_trunc(unit, start, "UTC")
        else:
            group = sa.func.substr(sa.type_coerce(start, sa.Text), 1, _GROUPS[unit])
        within = _within(table)
        if table is tables.thinned:
            # Named, so that the key of the table leads to the start: else all rows of the machine are looked at.
            within &= thinned.period.in_([*_GROUPS])
        queries.append(sa.select(sa.func.min(start, type_=UtcTime()), *numbers).where(within).group_by(group))
    return queries

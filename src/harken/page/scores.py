"""Scores over time as the store holds them, in equal periods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from harken.service.store import tables
from harken.service.store.columns import UtcTime

#: what the page shows at once, and the length of a period in it
SPANS: dict[str, tuple[timedelta, timedelta]] = {
    "day": (timedelta(days=1), timedelta(minutes=5)),
    "week": (timedelta(days=7), timedelta(hours=1)),
    "month": (timedelta(days=31), timedelta(hours=4)),
    "year": (timedelta(days=366), timedelta(days=1)),
}
#: length of what is grouped by the database
_GROUPS = {"minute": 16, "hour": 13, "day": 10}


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
    for start, *values in (
        *_windows(connection, monitor, machine, since, until, length),
        *_thinned(connection, monitor, machine, since, until),
    ):
        number = int(start.timestamp() // seconds)
        if number not in by_number:
            by_number[number] = Period(datetime.fromtimestamp(number * seconds, UTC))
        by_number[number].add(*values)
    return [by_number[number] for number in sorted(by_number)]


def _windows(
    connection: Connection, monitor: str, machine: str, since: datetime, until: datetime, length: timedelta
) -> list[tuple[Any, ...]]:
    """Grouped by minute, hour or day in the database, so that few rows come."""
    columns = tables.windows.c
    unit = "day" if length >= timedelta(days=1) else "hour" if length >= timedelta(hours=1) else "minute"
    group: sa.ColumnElement[Any]
    if connection.dialect.name == "postgresql":
        group = sa.func.date_trunc(unit, columns.start)
    else:
        group = sa.func.substr(sa.type_coerce(columns.start, sa.Text), 1, _GROUPS[unit])
    query = (
        sa.select(
            sa.func.min(columns.start, type_=UtcTime()),
            sa.func.count(columns.score),
            sa.func.count() - sa.func.count(columns.score),
            sa.func.min(columns.score),
            sa.func.avg(columns.score),
            sa.func.max(columns.score),
        )
        .where(columns.monitor == monitor, columns.machine == machine, columns.start >= since, columns.start < until)
        .group_by(group)
    )
    return [tuple(row) for row in connection.execute(query)]


def _thinned(
    connection: Connection, monitor: str, machine: str, since: datetime, until: datetime
) -> list[tuple[Any, ...]]:
    columns = tables.thinned.c
    query = sa.select(
        columns.start, columns.count, columns.not_judged, columns.minimum, columns.mean, columns.maximum
    ).where(columns.monitor == monitor, columns.machine == machine, columns.start >= since, columns.start < until)
    return [tuple(row) for row in connection.execute(query)]

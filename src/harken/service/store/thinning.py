"""Old scores become fewer: per minute, then per hour, then per day; and what nobody needs any more is removed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from harken.service.store import tables
from harken.service.store.features import FeatureLimits, thin_features
from harken.service.store.hours import remove_old_hours
from harken.service.store.messages import last_numbers
from harken.service.store.store import Store

#: period -> its length, and the age from which scores are thinned to it
PERIODS = {
    "minute": (timedelta(minutes=1), timedelta(days=7)),
    "hour": (timedelta(hours=1), timedelta(days=30)),
    "day": (timedelta(days=1), timedelta(days=365)),
}
#: age of messages that every sink has, and of answered requests, at which they are removed; the last message of each
#: machine and kind stays, for receivers that forget
_MESSAGES, _REQUESTS = timedelta(days=30), timedelta(days=90)
#: rows of a pass: others wait for no longer than it takes
_ROWS = 5_000
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass
class _Bucket:
    """count: scores; not_judged: windows without one."""

    count: int = 0
    not_judged: int = 0
    minimum: float | None = None
    mean: float | None = None
    maximum: float | None = None

    def add(self, added: _Bucket) -> None:
        """Count another one in; means are weighted."""
        self.not_judged += added.not_judged
        if not added.count or added.mean is None or added.minimum is None or added.maximum is None:
            return
        if not self.count or self.mean is None or self.minimum is None or self.maximum is None:
            self.minimum, self.mean, self.maximum = added.minimum, added.mean, added.maximum
        else:
            self.mean += (added.mean - self.mean) * added.count / (self.count + added.count)
            self.minimum, self.maximum = min(self.minimum, added.minimum), max(self.maximum, added.maximum)
        self.count += added.count


def thin(store: Store, now: datetime, limits: FeatureLimits = FeatureLimits()) -> bool:
    """One pass over what is old: some thousand rows, in one transaction. Returns whether there may be more.

    Buckets are whole: a period is thinned when all of it is old enough. limits: of features.
    """
    with store.transaction() as connection:
        more = [_thin(connection, store.monitor, period, now) for period in PERIODS]
        more.append(thin_features(connection, store.monitor, now, limits))
        _remove(connection, store.monitor, now)
        remove_old_hours(connection, store.monitor, now)
        return any(more)


def _thin(connection: Connection, monitor: str, period: str, now: datetime) -> bool:
    """Take the oldest rows of the finer table into buckets of this period."""
    length, age = PERIODS[period]
    finer = [*PERIODS][[*PERIODS].index(period) - 1]
    cutoff = _start(now - age, length)
    table = tables.windows if period == "minute" else tables.thinned
    columns = table.c
    chosen = (columns.monitor == monitor) & (columns.start < cutoff)
    if period != "minute":
        chosen &= columns.period == finer
    rows = connection.execute(sa.select(table).where(chosen).order_by(columns.start).limit(_ROWS)).all()
    buckets: dict[tuple[str, datetime], _Bucket] = defaultdict(_Bucket)
    for row in rows:
        buckets[row.machine, _start(row.start, length)].add(_bucket(row, period))
    for (machine, start), bucket in buckets.items():
        _merge(connection, {"monitor": monitor, "machine": machine, "period": period, "start": start}, bucket)
    if rows:
        keys = [*table.primary_key.columns]
        gone = sa.tuple_(*keys).in_([tuple(getattr(row, key.name) for key in keys) for row in rows])
        connection.execute(sa.delete(table).where(gone))
    return len(rows) == _ROWS


def _bucket(row: Any, period: str) -> _Bucket:
    if period != "minute":
        return _Bucket(row.count, row.not_judged, row.minimum, row.mean, row.maximum)
    if row.score is None or row.kind == "not judged":
        return _Bucket(not_judged=1)
    return _Bucket(1, 0, row.score, row.score, row.score)


def _merge(connection: Connection, key: dict[str, Any], bucket: _Bucket) -> None:
    """Count a bucket into that of the store, which an earlier pass, or a clock that was set back, may have begun."""
    columns = tables.thinned.c
    same = sa.and_(*(columns[name] == value for name, value in key.items()))
    stored = connection.execute(sa.select(tables.thinned).where(same)).first()
    if stored is None:
        connection.execute(sa.insert(tables.thinned).values(key | vars(bucket)))
        return
    merged = _bucket(stored, "hour")
    merged.add(bucket)
    connection.execute(sa.update(tables.thinned).where(same).values(vars(merged)))


def _remove(connection: Connection, monitor: str, now: datetime) -> None:
    messages, sinks, requests = tables.messages.c, tables.sinks.c, tables.requests.c
    slowest = connection.scalar(sa.select(sa.func.min(sinks.position)).where(sinks.monitor == monitor))
    old = (messages.monitor == monitor) & (messages.time < now - _MESSAGES)
    old &= messages.number.not_in(last_numbers(monitor))
    if slowest is not None:
        old &= messages.number <= slowest
    connection.execute(sa.delete(tables.messages).where(old))
    done = (requests.monitor == monitor) & requests.answer.is_not(None) & (requests.time < now - _REQUESTS)
    connection.execute(sa.delete(tables.requests).where(done))


def _start(time: datetime, length: timedelta) -> datetime:
    """Beginning of the period that a time is in."""
    return time - (time - _EPOCH) % length

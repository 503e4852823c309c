"""Sums of scores per hour, kept beside the windows, so that a week of many machines is read at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from harken.service.store import tables
from harken.service.store.engine import insert_into

#: age at which sums are removed; those of older hours are read from what was thinned
_AGE = timedelta(days=40)


def add_to_hours(connection: Connection, windows: Iterable[Mapping[str, Any]]) -> None:
    """Count rows of `tables.windows` that were not there before."""
    sums: dict[tuple[str, str, datetime], dict[str, Any]] = {}
    for row in windows:
        start = row["start"].replace(minute=0, second=0, microsecond=0)
        key, score = (row["monitor"], row["machine"], start), row["score"]
        if key not in sums:
            names = ("monitor", "machine", "start")
            sums[key] = dict(zip(names, key, strict=True)) | {
                "count": 0, "not_judged": 0, "minimum": None, "mean": None, "maximum": None
            }  # fmt: skip
        values = sums[key]
        if score is None:
            values["not_judged"] += 1
            continue
        count, values["count"] = values["count"], values["count"] + 1
        if not count:
            values |= {"minimum": score, "mean": score, "maximum": score}
            continue
        values |= {"minimum": min(values["minimum"], score), "maximum": max(values["maximum"], score)}
        values["mean"] += (score - values["mean"]) / (count + 1)
    if sums:
        connection.execute(_merging(connection), [*sums.values()])


def _merging(connection: Connection) -> Any:
    """A statement that counts a row into the one of its hour."""
    table = tables.hours
    query = insert_into(connection, table)
    stored, new = table.c, query.excluded
    total = sa.func.coalesce(stored.mean * stored.count, 0.0) + sa.func.coalesce(new["mean"] * new["count"], 0.0)
    return query.on_conflict_do_update(
        index_elements=["monitor", "machine", "start"],
        set_={
            "count": stored.count + new["count"],
            "not_judged": stored.not_judged + new["not_judged"],
            "minimum": _nearer(stored.minimum, new["minimum"], new["minimum"] < stored.minimum),
            "maximum": _nearer(stored.maximum, new["maximum"], new["maximum"] > stored.maximum),
            "mean": total / sa.func.nullif(stored.count + new["count"], 0),
        },
    )


def _nearer(stored: Any, new: Any, further: Any) -> Any:
    return sa.case((new.is_(None), stored), (stored.is_(None) | further, new), else_=stored)


def remove_old_hours(connection: Connection, monitor: str, now: datetime) -> None:
    """Remove what is read from elsewhere, and note from when on there are sums."""
    hours, monitors = tables.hours.c, tables.monitors
    since = (now - _AGE).replace(hour=0, minute=0, second=0, microsecond=0)
    of_monitor = monitors.c.name == monitor
    connection.execute(sa.delete(tables.hours).where(hours.monitor == monitor, hours.start < since))
    later = monitors.c.hours_since.is_(None) | (monitors.c.hours_since < since)
    connection.execute(sa.update(monitors).where(of_monitor, later).values(hours_since=since))

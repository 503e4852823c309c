"""What the page of one machine shows beside its state: its alarms with their evidence, its history, its scores."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from harken.page.scores import SPANS, periods
from harken.service.changes import AlarmRecord
from harken.service.store import tables
from harken.service.store.rows import alarms as stored_alarms

#: alarms, and lines of history, on one page
MOST_ALARMS, MOST_LINES = 20, 100


@dataclass(frozen=True)
class AlarmView:
    """An alarm with the rows of its evidence, the best one first."""

    alarm: AlarmRecord
    evidence: list[Row[Any]]


def alarms(connection: Connection, monitor: str, machine: str, most: int = MOST_ALARMS) -> list[AlarmView]:
    """The last alarms of a machine, the latest first."""
    records = stored_alarms(connection, monitor, machine, most)
    of = tables.evidence.c
    rows = connection.execute(sa.select(tables.evidence).where(of.alarm.in_([record.id for record in records]))).all()
    return [
        AlarmView(
            record,
            sorted(
                (row for row in rows if row.alarm == record.id),
                key=lambda row: (row.id != record.evidence, -(row.score or 0.0)),
            ),
        )
        for record in records
    ]


def history(connection: Connection, monitor: str, machine: str) -> list[Row[Any]]:
    """The last lines of a machine's history, the latest first: in the order in which they came about.

    Their times are those at which people asked, and of sound that may be replayed."""
    columns = tables.history.c
    query = sa.select(tables.history).where(columns.monitor == monitor, columns.machine == machine)
    return list(connection.execute(query.order_by(columns.number.desc()).limit(MOST_LINES)))


def evidence(connection: Connection, evidence_id: str) -> Row[Any] | None:
    """One row of evidence."""
    return connection.execute(sa.select(tables.evidence).where(tables.evidence.c.id == evidence_id)).first()


def scores(connection: Connection, monitor: str, machine: str, span: str, now: datetime) -> dict[str, Any]:
    """JSON-able scores of a span of `SPANS`: lists of equal length by name, times in seconds since 1970, UTC.

    A period in which nothing was judged is null, so that a gap is drawn as one.
    """
    total, length = SPANS[span]
    by_start = {period.start: period for period in periods(connection, monitor, machine, now - total, now, length)}
    first = min(by_start, default=now)
    steps = int((now - first) / length) + 1
    rows = [by_start.get(first + step * length) for step in range(steps)] if by_start else []
    return {
        "seconds": length.total_seconds(),
        "from": (now - total).timestamp(),
        "until": now.timestamp(),
        "time": [(first + step * length).timestamp() for step in range(len(rows))],
        "minimum": [row.minimum if row else None for row in rows],
        "mean": [row.mean if row else None for row in rows],
        "maximum": [row.maximum if row else None for row in rows],
        "not_judged": [row.not_judged if row else 0 for row in rows],
    }

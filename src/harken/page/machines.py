"""What the store says of each machine now, worst first."""

from __future__ import annotations

import hashlib
import itertools
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from harken.page.scores import SPANS, Period, periods
from harken.service.alarm_state import AlarmState
from harken.service.changes import AlarmRecord
from harken.service.store import tables
from harken.service.store.rows import alarm_of, latest, machine_names, of_machine

#: worst first; `silent`: nothing was heard for a while
State = Literal[
    "alarm", "sensor", "silent", "suspect", "returned", "normal", "off", "shelved", "out of service", "unknown"
]
ORDER: tuple[State, ...] = (
    "alarm", "suspect", "sensor", "silent", "returned", "shelved", "normal", "off", "out of service", "unknown",
)  # fmt: skip
#: nothing was heard: for so many windows, and so long at least
SILENT_WINDOWS, SILENT_S = 5, 120.0
_ALARM = tables.alarms.c.phase != "normal"
_SOUNDS = {kind: (tables.evidence.c.kind == kind) & (tables.evidence.c.sound != "") for kind in ("live", "normal")}
# Queries are made once: for many machines, making them takes longer than the answer.
_BANDS = (
    sa.select(tables.alarms.c.onset, tables.alarms.c.ended)
    .where(
        of_machine(tables.alarms),
        tables.alarms.c.ended.is_(None) | (tables.alarms.c.ended >= sa.bindparam("since")),
    )
    .order_by(tables.alarms.c.onset)
)
_STARTS = (
    sa.select(tables.windows.c.start)
    .where(of_machine(tables.windows))
    .order_by(tables.windows.c.number.desc())
    .limit(10)
)


@dataclass(frozen=True)
class MachineView:
    """One machine as the first page shows it.

    key: stands for monitor and machine in addresses. since: of the state. reason: a sentence, what differs or why it
    is not judged. alarm: that which is on, or is over and not acknowledged. limit: alarm limit of single windows, if
    known. last: the last window. sounds: id of the evidence with the last sound (`live`), with normal sound (`normal`)
    and of the alarm (`alarm`). strip, bands: scores and alarms of the last week.
    """

    key: str
    monitor: str
    machine: str
    state: State
    since: datetime | None = None
    until: datetime | None = None
    reason: str = ""
    status: str = "good"
    alarm: AlarmRecord | None = None
    limit: float | None = None
    last: Row[Any] | None = field(default=None, repr=False)
    model: Row[Any] | None = field(default=None, repr=False)
    sounds: dict[str, str] = field(default_factory=dict, repr=False)
    strip: list[Period] = field(default_factory=list, repr=False)
    bands: list[tuple[datetime, datetime]] = field(default_factory=list, repr=False)


def key_of(monitor: str, machine: str) -> str:
    """Twelve hexadecimal digits that stand for a machine in an address, so that its name need not."""
    return hashlib.sha256(f"{monitor}\0{machine}".encode()).hexdigest()[:12]


class Machines:
    """Reads what is shown of machines. What is over is kept between two readings, so that a year costs no more than
    a day. Threads may share it: each reading takes a connection of its own.
    """

    def __init__(self) -> None:
        self._hours: dict[tuple[str, str], list[Period]] = {}
        #: times of the last readings
        self._read: dict[tuple[str, str], datetime] = {}
        # Readers that come before the first one is done wait for what it reads.
        self._lock = threading.Lock()

    def all(self, connection: Connection, now: datetime) -> list[MachineView]:
        """Every machine of the store, worst first."""
        with self._lock:
            views = [self.view(connection, monitor, machine, now) for monitor, machine in machine_names(connection)]
        return sorted(views, key=lambda view: (ORDER.index(view.state), view.machine, view.monitor))

    def find(self, connection: Connection, key: str, now: datetime) -> MachineView | None:
        """The machine that a key stands for."""
        for monitor, machine in machine_names(connection):
            if key_of(monitor, machine) == key:
                return self.view(connection, monitor, machine, now)
        return None

    def view(self, connection: Connection, monitor: str, machine: str, now: datetime) -> MachineView:
        """One machine."""
        of = _Rows(connection, monitor, machine)
        last, alarm, sensor, model = of.window(), of.alarm(), of.sensor(), of.model()
        span, length = SPANS["week"]
        values: dict[str, Any] = {
            "key": key_of(monitor, machine), "monitor": monitor, "machine": machine, "last": last, "model": model,
            "alarm": alarm, "limit": model.threshold if model is not None else None,
            "sounds": of.sounds(alarm), "strip": self._strip(connection, monitor, machine, now, span, length),
            "bands": of.bands(now - span, now),
        }  # fmt: skip
        return MachineView(**values, **of.state(last, alarm, sensor, now))

    def _strip(
        self, connection: Connection, monitor: str, machine: str, now: datetime, span: timedelta, length: timedelta
    ) -> list[Period]:
        """Hours that were over for two hours when they were read are read once."""
        kept = [period for period in self._hours.get((monitor, machine), []) if period.start >= now - span]
        # A clock may have been ahead then.
        read = min(now, self._read.get((monitor, machine), now))
        self._read[monitor, machine] = now
        settled = [period for period in kept if period.start < read - 2 * length]
        # Windows that were stored late are in periods after the last that is settled.
        since = settled[-1].start + length if settled else now - span
        strip = [*settled, *periods(connection, monitor, machine, since, now + length, length)]
        self._hours[monitor, machine] = strip
        return strip


class _Rows:
    """Rows of one machine."""

    def __init__(self, connection: Connection, monitor: str, machine: str) -> None:
        self._connection, self._of = connection, {"monitor": monitor, "machine": machine}

    def _latest(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> Row[Any] | None:
        return latest(self._connection, table, self._of["monitor"], self._of["machine"], *where)

    def window(self) -> Row[Any] | None:
        """The last one."""
        return self._latest(tables.windows)

    def model(self) -> Row[Any] | None:
        """The one in use."""
        return self._latest(tables.models)

    def alarm(self) -> AlarmRecord | None:
        """The latest that is on or not acknowledged."""
        row = self._latest(tables.alarms, _ALARM)
        return None if row is None else alarm_of(row)

    def sensor(self) -> Row[Any] | None:
        """Its present status."""
        return self._latest(tables.sensors)

    def sounds(self, alarm: AlarmRecord | None) -> dict[str, str]:
        """See `MachineView`."""
        rows = {kind: self._latest(tables.evidence, sound) for kind, sound in _SOUNDS.items()}
        ids = {kind: row.id for kind, row in rows.items() if row is not None}
        return ids | ({"alarm": alarm.evidence} if alarm is not None and alarm.evidence else {})

    def bands(self, since: datetime, now: datetime) -> list[tuple[datetime, datetime]]:
        """Beginning and end of the alarms after `since`."""
        rows = self._connection.execute(_BANDS, {**self._of, "since": since})
        return [(row.onset, row.ended or now) for row in rows]

    def state(
        self, last: Row[Any] | None, alarm: AlarmRecord | None, sensor: Row[Any] | None, now: datetime
    ) -> dict[str, Any]:
        """Fields `state`, `since`, `until`, `reason`, `status` of the view."""
        memory = self._latest(tables.machines)
        mode = AlarmState.from_json(memory.state.get("state", {}) if memory is not None else {})
        if mode.out_of_service:
            return {"state": "out of service"}
        status = sensor.status if sensor is not None else "good"
        if alarm is not None and alarm.phase != "returned":
            state = "shelved" if mode.shelved_until else "alarm"
            return {"state": state, "since": alarm.onset, "until": mode.shelved_until, "reason": alarm.sentence}
        if last is None:
            return {"state": "unknown"}
        if now - last.end > timedelta(seconds=max(SILENT_S, SILENT_WINDOWS * self._interval_s())):
            return {"state": "silent", "since": last.end}
        if status == "off":
            return {"state": "off", "since": sensor.since if sensor is not None else None}
        if status != "good" and sensor is not None:
            return {"state": "sensor", "since": sensor.since, "reason": sensor.reason, "status": status}
        if mode.shelved_until:
            return {"state": "shelved", "until": mode.shelved_until}
        if alarm is not None:
            return {"state": "returned", "since": alarm.onset, "until": alarm.ended, "reason": alarm.sentence}
        if last.kind in ("suspect", "alarm"):
            return {"state": "suspect", "since": last.start}
        return {"state": "normal"}

    def _interval_s(self) -> float:
        """From one window to the next, the longest of the last ten."""
        starts = self._connection.scalars(_STARTS, self._of).all()
        steps = [(later - earlier).total_seconds() for later, earlier in itertools.pairwise(starts)]
        return max(steps, default=0.0)

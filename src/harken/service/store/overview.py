"""What people ask a store: the machines as they are, their alarms, the sinks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from harken.service.changes import AlarmRecord
from harken.service.store import rows, tables
from harken.service.store.running import Running, running
from harken.service.store.store import SinkState, Store


@dataclass(frozen=True)
class MachineOverview:
    """A machine as it is. state: memory of its alarms, see `Changes.states`. sensor, reason: status of its sensor.

    last: end of its latest window; kind, score: of that; not_judged: why it was not. alarm: the latest one.
    """

    machine: str
    state: dict[str, Any]
    model: str = ""
    sensor: str = ""
    reason: str = ""
    last: datetime | None = None
    kind: str = ""
    score: float | None = None
    not_judged: str = ""
    alarm: AlarmRecord | None = None


@dataclass(frozen=True)
class MonitorOverview:
    """A monitor as it is. running: whether it runs; None where it has never run. messages: number of the last one."""

    monitor: str
    running: Running | None
    messages: int
    machines: list[MachineOverview]
    sinks: list[SinkState]


def overview(store: Store) -> MonitorOverview:
    """The monitor of the store. Raises StoreError where it cannot be reached."""
    columns = tables.monitors.c
    with store.reading() as connection:
        of_monitor = running(connection, store.monitor)
        last = connection.scalar(sa.select(columns.last_number).where(columns.name == store.monitor))
        machines = [_machine(connection, *names) for names in rows.machine_names(connection, store.monitor)]
    sinks = [*store.sinks().values()]
    return MonitorOverview(store.monitor, of_monitor[0] if of_monitor else None, last or 0, machines, sinks)


def alarms(store: Store, *, machine: str | None = None, limit: int = 20) -> list[AlarmRecord]:
    """The latest alarms, the latest first. machine: None: of all."""
    with store.reading() as connection:
        return rows.alarms(connection, store.monitor, machine, limit)


def monitors(store: Store) -> list[str]:
    """Names of the monitors that share the store."""
    with store.reading() as connection:
        return [*connection.scalars(sa.select(tables.monitors.c.name).order_by(tables.monitors.c.name))]


def _machine(connection: Connection, monitor: str, machine: str) -> MachineOverview:
    def latest(table: sa.Table) -> Any:
        return rows.latest(connection, table, monitor, machine)

    state, model, sensor = latest(tables.machines), latest(tables.models), latest(tables.sensors)
    window = latest(tables.windows)
    alarm = rows.alarms(connection, monitor, machine, 1)
    return MachineOverview(
        machine,
        {} if state is None else state.state,
        model="" if model is None else model.path,
        sensor="" if sensor is None else sensor.status,
        reason="" if sensor is None else sensor.reason,
        last=None if window is None else window.end,
        kind="" if window is None else window.kind,
        score=None if window is None else window.score,
        not_judged="" if window is None or window.kind != "not judged" else window.reason,
        alarm=alarm[0] if alarm else None,
    )

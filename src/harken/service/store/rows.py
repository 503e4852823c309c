"""Rows of the store that everybody reads: machines, the latest of each kind, alarms."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from harken.core.sentences import Sentence
from harken.service.changes import AlarmRecord
from harken.service.store import tables

#: table -> column of the machine, and that by which its rows are ordered
_ORDERED = {
    tables.machines: ("machine", "changed"),
    tables.models: ("machine", "number"),
    tables.windows: ("machine", "number"),
    tables.sensors: ("sensor", "number"),
    tables.alarms: ("machine", "number"),
    tables.evidence: ("machine", "number"),
}


def machine_names(connection: Connection, monitor: str | None = None) -> list[tuple[str, str]]:
    """Monitor and name of every machine, in order. monitor: of that alone."""
    of_monitor = [
        sa.select(table.c.monitor, table.c.machine).where(sa.true() if monitor is None else table.c.monitor == monitor)
        for table in (tables.machines, tables.models)
    ]
    return sorted((row[0], row[1]) for row in connection.execute(sa.union(*of_monitor)))


def latest(
    connection: Connection, table: sa.Table, monitor: str, machine: str, *where: sa.ColumnElement[bool]
) -> Row[Any] | None:
    """The last row of a machine in a table; None without any. where: of those that this holds for; constants, since the
    query that they make is kept."""
    return connection.execute(_latest(table, where), {"monitor": monitor, "machine": machine}).first()


@lru_cache
def _latest(table: sa.Table, where: tuple[sa.ColumnElement[bool], ...]) -> sa.Select[Any]:
    """The query of `latest`. Made once: for many machines, making it takes longer than the answer."""
    name, order = _ORDERED[table]
    return sa.select(table).where(of_machine(table, name), *where).order_by(table.c[order].desc()).limit(1)


def of_machine(table: sa.Table, name: str = "machine") -> sa.ColumnElement[bool]:
    """Rows of the machine that is bound as `monitor` and `machine` when the query is asked. name: of the column."""
    return (table.c.monitor == sa.bindparam("monitor")) & (table.c[name] == sa.bindparam("machine"))


def sentence(connection: Connection, text: str) -> Sentence | None:
    """The sentence that a text of the store was made as; None where it is plain text, as those of earlier releases."""
    made_of = connection.scalar(sa.select(tables.sentences.c.parts).where(tables.sentences.c.text == text))
    try:
        return None if made_of is None else Sentence.from_json(made_of)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def alarms(connection: Connection, monitor: str, machine: str | None, limit: int) -> list[AlarmRecord]:
    """The last alarms, the latest first. machine: None: of all."""
    columns = tables.alarms.c
    of_machine = sa.true() if machine is None else columns.machine == machine
    query = sa.select(tables.alarms).where(columns.monitor == monitor, of_machine)
    return [alarm_of(row) for row in connection.execute(query.order_by(columns.number.desc()).limit(limit))]


def alarm_of_id(connection: Connection, alarm_id: str) -> tuple[str, AlarmRecord] | None:
    """Monitor and record of an alarm."""
    row = connection.execute(sa.select(tables.alarms).where(tables.alarms.c.id == alarm_id)).first()
    return None if row is None else (row.monitor, alarm_of(row))


def alarm_of(row: Row[Any]) -> AlarmRecord:
    """An alarm as the store holds it."""
    return AlarmRecord(**{name: value for name, value in row._mapping.items() if name not in ("monitor", "number")})

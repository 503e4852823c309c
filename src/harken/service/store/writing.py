"""Rows of `Changes`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from harken.core.json_text import finite
from harken.core.sentences import Sentence
from harken.service.changes import Changes
from harken.service.kept_features import WindowFeatures
from harken.service.model_versions import MachineVersion
from harken.service.store import tables
from harken.service.store.engine import insert_into
from harken.service.store.hours import add_to_hours

#: characters of a sentence that is said in other languages
_LONGEST_SENTENCE = 600


def write_changes(connection: Connection, monitor: str, changes: Changes) -> int:
    """Write all changes of a monitor within a transaction; how many windows were there before, and are left."""
    rows = [{"monitor": monitor, **finite(asdict(window))} for window in changes.windows]
    fresh = _insert(connection, tables.windows, rows)
    add_to_hours(connection, fresh)
    _insert(connection, tables.features, [_features_row(monitor, window) for window in changes.features])
    for machine, since in changes.notable.items():
        columns = tables.features.c
        of_machine = (columns.monitor == monitor) & (columns.machine == machine) & (columns.start >= since)
        connection.execute(sa.update(tables.features).where(of_machine).values(notable=True))
    now = datetime.now(UTC)
    states = [
        {"monitor": monitor, "machine": machine, "state": finite(state), "changed": now}
        for machine, state in changes.states.items()
    ]
    _upsert(connection, tables.machines, ("monitor", "machine"), states)
    tokens = [
        {"monitor": monitor, "key": key, "token": finite(dict(token))} for key, token in changes.resume.items() if token
    ]
    _upsert(connection, tables.resume, ("monitor", "key"), tokens)
    if forgotten := [{"gone": key} for key, token in changes.resume.items() if not token]:
        columns = tables.resume.c
        query = sa.delete(tables.resume).where(columns.monitor == monitor, columns.key == sa.bindparam("gone"))
        connection.execute(query, forgotten)
    last_record = _last_record(connection, monitor)

    def numbered(records: Iterable[Any]) -> list[dict[str, Any]]:
        nonlocal last_record
        first, records = last_record + 1, [*records]
        last_record += len(records)
        return [
            {"monitor": monitor, **finite(asdict(record)), "number": first + row} for row, record in enumerate(records)
        ]

    # An alarm keeps the number under which it was raised; a reason of a sensor may be said anew.
    _upsert(connection, tables.alarms, ("id",), numbered(changes.alarms.values()), keeps="number")
    _insert(connection, tables.models, numbered(changes.models))
    _insert(connection, tables.evidence, numbered(changes.evidence))
    _upsert(connection, tables.sensors, ("monitor", "sensor", "since"), numbered(changes.sensors), keeps="number")
    history = [{"monitor": monitor, **finite(asdict(entry))} for entry in changes.history]
    _insert(connection, tables.history, history)
    _write_versions(connection, monitor, changes.versions)
    _insert(connection, tables.sentences, list(_sentences(changes)))
    if changes.evidence_gone:
        connection.execute(sa.delete(tables.evidence).where(tables.evidence.c.id.in_(changes.evidence_gone)))
    for number, answer in changes.requests_done.items():
        connection.execute(sa.update(tables.requests).where(tables.requests.c.number == number).values(answer=answer))
    messages = [{"monitor": monitor, **asdict(message)} for message in changes.messages]
    _insert(connection, tables.messages, [{**row, "payload": finite(row["payload"])} for row in messages])
    last = max((message.number for message in changes.messages), default=0)
    written = {
        "name": monitor, "last_number": last, "last_record": last_record + bool(changes.states),
        "seen": now, "stopped": None, "stopped_by": None,
    }  # fmt: skip
    _upsert(connection, tables.monitors, ("name",), [written], least="last_number")
    return len(rows) - len(fresh)


def _last_record(connection: Connection, monitor: str) -> int:
    columns = tables.monitors.c
    return connection.scalar(sa.select(columns.last_record).where(columns.name == monitor)) or 0


def _sentences(changes: Changes) -> Iterator[dict[str, Any]]:
    """What the sentences that people are shown were made of."""
    texts: list[str] = [sensor.reason for sensor in changes.sensors]
    texts += [alarm.sentence for alarm in changes.alarms.values()]
    texts += [evidence.sentence for evidence in changes.evidence if evidence.kind == "alarm"]
    texts += [sentence for model in changes.models for sentence in model.sentences]
    texts += [text for entry in changes.history for text in (entry.action, entry.text)]
    texts += changes.requests_done.values()
    for text in dict.fromkeys(texts):
        # PostgreSQL has no index on longer ones.
        if isinstance(text, Sentence) and len(text) <= _LONGEST_SENTENCE:
            yield {"text": str(text), "parts": finite(text.to_json())}


def _features_row(monitor: str, window: WindowFeatures) -> dict[str, Any]:
    values = {each.name: getattr(window, each.name) for each in fields(window)}
    return {"monitor": monitor, **values, "score": finite(window.score) or 0.0, "period": "", "size": len(window.data)}


def _write_versions(connection: Connection, monitor: str, versions: list[MachineVersion]) -> None:
    """Those of each machine in place of what was there; what was counted stays unless it was counted again."""
    columns = tables.versions.c
    for machine in {version.machine for version in versions}:
        of_machine = (columns.monitor == monitor) & (columns.machine == machine)
        rows = connection.execute(sa.select(columns.number, columns.counted).where(of_machine))
        counted = {row.number: row.counted for row in rows}
        connection.execute(sa.delete(tables.versions).where(of_machine))
        for version in versions:
            if version.machine == machine:
                count = counted.get(version.number, {}) if version.counted is None else version.counted.to_json()
                values = {each.name: getattr(version, each.name) for each in fields(version)}
                connection.execute(sa.insert(tables.versions).values({"monitor": monitor, **values, "counted": count}))


def _insert(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Insert rows that are not there yet; those."""
    if not rows:
        return []
    query = insert_into(connection, table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    # One by one: only then do all drivers count those that were left.
    return [row for row in rows if connection.execute(query, row).rowcount]


def _upsert(
    connection: Connection,
    table: sa.Table,
    key: tuple[str, ...],
    rows: list[dict[str, Any]],
    least: str | None = None,
    keeps: str | None = None,
) -> None:
    """Insert or replace rows of the same columns, among them `key`. least: a column that never falls. keeps: one that
    is not replaced."""
    if not rows:
        return
    query = insert_into(connection, table)
    replaced: dict[str, Any] = {name: query.excluded[name] for name in rows[0] if name not in (*key, keeps)}
    if least is not None:
        column, new = table.c[least], query.excluded[least]
        replaced[least] = sa.case((new > column, new), else_=column)
    connection.execute(query.on_conflict_do_update(index_elements=list(key), set_=replaced), rows)

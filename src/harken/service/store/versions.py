"""Versions of the models of machines in the store."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from harken.service.model_versions import MachineVersion, VersionCount
from harken.service.store import tables
from harken.service.store.rows import latest


def machine_versions(connection: Connection, monitor: str, machine: str) -> list[MachineVersion]:
    """Those of a machine, the latest first."""
    columns = tables.versions.c
    query = sa.select(tables.versions).where(columns.monitor == monitor, columns.machine == machine)
    versions = []
    for row in connection.execute(query.order_by(columns.number.desc())):
        values = {name: value for name, value in row._mapping.items() if name not in ("monitor", "counted")}
        counted = VersionCount.from_json(row.counted) if row.counted else None
        versions.append(MachineVersion(**values, counted=counted))
    return versions


def sharing_machines(connection: Connection, monitor: str, machine: str) -> list[str]:
    """Other machines, of any monitor of the store, that are judged with the same model."""
    columns = tables.models.c
    model = latest(connection, tables.models, monitor, machine)
    if model is None:
        return []
    newest = (
        sa.select(columns.monitor, columns.machine, sa.func.max(columns.number).label("number"))
        .group_by(columns.monitor, columns.machine)
        .subquery()
    )
    query = sa.select(columns.monitor, columns.machine, columns.path).join(
        newest,
        (columns.monitor == newest.c.monitor)
        & (columns.machine == newest.c.machine)
        & (columns.number == newest.c.number),
    )
    return sorted(
        row.machine
        for row in connection.execute(query)
        if row.path == model.path and (row.monitor, row.machine) != (monitor, machine)
    )

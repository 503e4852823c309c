"""Messages of a monitor as the store has them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from harken.service.records import Message
from harken.service.store import tables

_COLUMNS = tables.messages.c


def messages_after(connection: Connection, monitor: str, number: int, limit: int) -> list[Message]:
    """The first messages with a higher number, in order."""
    return _messages(connection, monitor, sa.select(tables.messages).where(_COLUMNS.number > number).limit(limit))


def last_messages(connection: Connection, monitor: str, number: int) -> list[Message]:
    """Of each machine and kind the last message with at most this number, in order."""
    last = last_numbers(monitor).where(_COLUMNS.number <= number)
    return _messages(connection, monitor, sa.select(tables.messages).where(_COLUMNS.number.in_(last)))


def last_numbers(monitor: str) -> sa.Select[tuple[int]]:
    """Numbers of the last message of each machine and kind."""
    query = sa.select(sa.func.max(_COLUMNS.number)).where(_COLUMNS.monitor == monitor)
    return query.group_by(_COLUMNS.machine, _COLUMNS.kind)


def _messages(connection: Connection, monitor: str, query: sa.Select[Any]) -> list[Message]:
    rows = connection.execute(query.where(_COLUMNS.monitor == monitor).order_by(_COLUMNS.number))
    return [Message(row.id, row.number, row.kind, row.machine, row.time, row.payload) for row in rows]

"""One store of many monitors: what belongs together is written in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, Row
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from harken.core.errors import HarkenError
from harken.service.changes import Changes, SensorRecord
from harken.service.records import Message
from harken.service.requests import Request
from harken.service.store import tables
from harken.service.store.engine import make_engine, reading, shown_url, store_url
from harken.service.store.lease import BusyError, Lease, LostError
from harken.service.store.messages import last_messages, messages_after
from harken.service.store.migrate import migrate
from harken.service.store.writing import write_changes


class StoreError(HarkenError):
    """A store that cannot be reached, or takes nothing more: it may later."""


class UndecidedError(StoreError):
    """It is not yet known whether another process is the monitor: it is seen by looking again and again."""


@dataclass
class SinkState:
    """How far a sink is. position: number of the last message that it has. delivered: time of it.

    refused: messages that it never takes; the last reason is `problem`. failures: tries since the last delivery;
    next_try: not before then; problem: of the last try.
    """

    sink: str
    position: int = 0
    delivered: datetime | None = None
    refused: int = 0
    failures: int = 0
    next_try: datetime | None = None
    problem: str = ""


@dataclass
class StoredState:
    """What a monitor takes up from its store. last_number: of its messages. states, resume: see `Changes`.

    sensors: last record of each by name.
    """

    last_number: int = 0
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    resume: dict[str, dict[str, Any]] = field(default_factory=dict)
    sinks: dict[str, SinkState] = field(default_factory=dict)
    sensors: dict[str, SensorRecord] = field(default_factory=dict)

    def follow(self, changes: Changes) -> None:
        """Be as the store is after these changes."""
        self.states |= changes.states
        self.sensors |= {record.sensor: record for record in changes.sensors}
        for key, token in changes.resume.items():
            if token:
                self.resume[key] = dict(token)
            else:
                self.resume.pop(key, None)


class Store:
    """The store as one monitor writes it. Threads may share it. Everything raises StoreError while it is unreachable.

    monitor: name of the writer; each has its own machines, messages and sinks. owner: see `Lease`.
    """

    def __init__(self, engine: Engine, monitor: str, name: str, owner: str = "") -> None:
        self.engine = engine
        self.monitor = monitor
        self.name = name
        self._lease = Lease(engine, monitor, name, owner)

    @classmethod
    def open(cls, place: str | Path, monitor: str = "monitor", owner: str = "") -> Store:
        """Open, make or migrate the store at `place`: path of an SQLite file, or `postgresql://...`.

        Raises HarkenError for what is no store, or that of a newer release; StoreError where it cannot be reached.
        """
        url = store_url(place)
        store = cls(make_engine(url), monitor, shown_url(url), owner)
        with store._reaching():
            migrate(store.engine, store.name)
        return store

    def close(self) -> None:
        """Give its connections up, and its name."""
        if self._lease.used:
            # Where the store cannot be reached, the name is free after a while.
            with suppress(DBAPIError, sa.exc.TimeoutError, OSError), self.engine.begin() as connection:
                self._lease.release(connection)
        self.engine.dispose()

    def hold(self, *, wait: bool = False) -> None:
        """Return while no other process is the monitor of this name in a PostgreSQL store (of an SQLite file, see
        `service.alone`), as every transaction sees from then on. wait: until that is decided.

        Raises TakenError where one is; UndecidedError where that is not yet known.
        """
        if self.engine.dialect.name != "postgresql":
            return
        try:
            with self._reaching():
                self._lease.hold(wait=wait)
        except BusyError as error:
            raise UndecidedError(error.cause, file=error.file, next_step=error.next_step) from None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        # Others are mistakes of this program.
        except (IntegrityError, ProgrammingError):
            raise
        except (DBAPIError, sa.exc.TimeoutError, OSError) as error:
            raise StoreError(f"cannot be used ({_reason(error)})", file=self.name, next_step=_STEP) from error

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose changes are stored at its end, all or none: none where this process held the name of the
        monitor, and another one has it now."""
        with self._reaching(), self.engine.begin() as connection:
            if self._lease.used:
                try:
                    self._lease.renew(connection)
                except LostError as error:
                    raise StoreError(error.cause, file=error.file, next_step=error.next_step) from None
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that reads, of one moment. Raises HarkenError for rows that no monitor writes."""
        with self._reaching(), reading(self.engine) as connection:
            try:
                yield connection
            except (ValueError, TypeError) as error:
                cause = f"has a row that no monitor writes ({error})"
                raise HarkenError(
                    cause, file=self.name, next_step="Restore it from a copy, or begin a new one"
                ) from error

    def commit(self, changes: Changes) -> int:
        """Store all of it or nothing. Returns how many of its windows were stored before, and are left as they were.

        Messages that are stored already are left, too, so that it may be tried again after an error.
        """
        with self.transaction() as connection:
            return write_changes(connection, self.monitor, changes)

    def load(self) -> StoredState:
        """What the monitor left when it last ran."""
        monitors, machines, resume = tables.monitors.c, tables.machines.c, tables.resume.c
        monitor = self.monitor
        with self.reading() as connection:
            last = connection.scalar(sa.select(monitors.last_number).where(monitors.name == monitor))
            states = connection.execute(sa.select(machines.machine, machines.state).where(machines.monitor == monitor))
            tokens = connection.execute(sa.select(resume.key, resume.token).where(resume.monitor == monitor))
            return StoredState(
                last_number=last or 0,
                states={machine: state for machine, state in states},
                resume={key: token for key, token in tokens},
                sinks=_sinks(connection, monitor),
                sensors=_sensors(connection, monitor),
            )

    # ---- outbox ------------------------------------------------------------------------------------------

    def messages(self, after: int, limit: int) -> list[Message]:
        """The first messages with a number above `after`, in order."""
        with self.reading() as connection:
            return messages_after(connection, self.monitor, after, limit)

    def last_messages(self, number: int) -> list[Message]:
        """Of each machine and kind the last message with at most this number, in order."""
        with self.reading() as connection:
            return last_messages(connection, self.monitor, number)

    def sinks(self) -> dict[str, SinkState]:
        """State of each sink by name."""
        with self.reading() as connection:
            return _sinks(connection, self.monitor)

    def save_sinks(self, states: Iterable[SinkState]) -> None:
        """Store how far sinks are."""
        with self.transaction() as connection:
            for state in states:
                values = asdict(state)
                del values["sink"]
                columns = tables.sinks.c
                of_monitor = (columns.monitor == self.monitor) & (columns.sink == state.sink)
                if not connection.execute(sa.update(tables.sinks).where(of_monitor).values(values)).rowcount:
                    values |= {"monitor": self.monitor, "sink": state.sink}
                    connection.execute(sa.insert(tables.sinks).values(values))

    def keep_sinks(self, names: Iterable[str]) -> None:
        """Forget other sinks, so that messages are not kept for them."""
        columns = tables.sinks.c
        with self.transaction() as connection:
            gone = (columns.monitor == self.monitor) & columns.sink.not_in(list(names))
            connection.execute(sa.delete(tables.sinks).where(gone))

    # ---- requests ----------------------------------------------------------------------------------------

    def ask(self, request: Request) -> int:
        """Leave a request to the monitor; its number."""
        values = {
            "monitor": self.monitor, "machine": request.machine, "demand": request.demand, "who": request.who,
            "time": request.time, "until": request.until, "text": request.text, "answer": None,
            "alarm": request.alarm, "since": request.since, "version": request.version, "force": request.force,
        }  # fmt: skip
        with self.transaction() as connection:
            done = connection.execute(sa.insert(tables.requests).values(values))
            assert done.inserted_primary_key is not None
            return int(done.inserted_primary_key[0])

    def requests(self) -> list[Request]:
        """Those without an answer, in order."""
        columns = tables.requests.c
        query = sa.select(tables.requests).where(columns.monitor == self.monitor, columns.answer.is_(None))
        with self.reading() as connection:
            return [_request(row) for row in connection.execute(query.order_by(columns.number))]

    def request(self, number: int) -> Request | None:
        """One of them, answered or not."""
        query = sa.select(tables.requests).where(tables.requests.c.number == number)
        with self.reading() as connection:
            row = connection.execute(query).first()
            return None if row is None else _request(row)

    def answer(self, number: int) -> str | None:
        """What the monitor answered to a request; None as long as it did not."""
        columns = tables.requests.c
        with self.reading() as connection:
            return connection.scalar(sa.select(columns.answer).where(columns.number == number))

    def seen(self, time: datetime) -> None:
        """Note that the monitor is running."""
        self._note(seen=time, stopped=None, stopped_by=None)

    def stopped(self, time: datetime, by: str) -> None:
        """Note that the monitor was stopped in order, and by what."""
        self._note(seen=time, stopped=time, stopped_by=by)

    def _note(self, **values: Any) -> None:
        with self.transaction() as connection:
            query = sa.update(tables.monitors).where(tables.monitors.c.name == self.monitor)
            if not connection.execute(query.values(values)).rowcount:
                connection.execute(sa.insert(tables.monitors).values(name=self.monitor, last_number=0, **values))


_STEP = "The monitor goes on and tries again; see that the database runs and has space"


def _reason(error: Exception) -> str:
    """The first line of what the database says."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return (text.strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _request(row: Row[Any]) -> Request:
    return Request(**{each.name: getattr(row, each.name) for each in fields(Request)})


def _sinks(connection: Connection, monitor: str) -> dict[str, SinkState]:
    query = sa.select(tables.sinks).where(tables.sinks.c.monitor == monitor)
    return {
        row.sink: SinkState(**{each.name: getattr(row, each.name) for each in fields(SinkState)})
        for row in connection.execute(query)
    }


def _sensors(connection: Connection, monitor: str) -> dict[str, SensorRecord]:
    columns = tables.sensors.c
    query = sa.select(tables.sensors).where(columns.monitor == monitor).order_by(columns.number)
    return {
        row.sensor: SensorRecord(row.sensor, row.status, row.since, row.reason) for row in connection.execute(query)
    }

"""Connections to PostgreSQL which give up what does not answer, and ask for nothing that a pooler could not give."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

#: seconds without a word from the server after which a connection is given up. Where a proxy or a computer on the way
#: has stopped, the network goes on to confirm what is sent
SILENCE_S = 15.0
#: of each transaction that writes, for the server: it ends one whose client is not heard of, and frees the rows that it
#: has locked; one that waits for such a row gets an error before `SILENCE_S`
_LIMITS = "SELECT set_config('idle_in_transaction_session_timeout', %s, true), set_config('lock_timeout', %s, true)"
_WRITING, _UNLIMITED = ("15s", "10s"), ("0", "0")


class PatientConnection(psycopg.Connection[Any]):
    """A connection that ends where the server says nothing for `SILENCE_S` while it is waited for."""

    silence_s = SILENCE_S

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """See `psycopg.Connection.wait`. Raises OperationalError after a silence."""
        return super().wait(self._heard(gen), *arguments, **options)

    def _heard(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The steps of `gen`, which learns several times per second whether the server has said something."""
        last = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    last = time.monotonic()
                elif time.monotonic() - last > self.silence_s:
                    gen.close()
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {self.silence_s:.0f} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def postgres_engine(url: sa.URL) -> Engine:
    """Engine of a PostgreSQL database."""
    arguments = {
        # A connection that a network has forgotten is given up within seconds, else windows would wait for it.
        "connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
        "tcp_user_timeout": 10_000, "application_name": "harken",
        # A pooler gives each transaction another session, which does not know what was prepared.
        "prepare_threshold": None,
    }  # fmt: skip
    engine = sa.create_engine(url, pool_pre_ping=True, pool_size=2, max_overflow=8, connect_args=arguments)

    @sa.event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, record: Any, positional: list[Any], named: dict[str, Any]) -> PatientConnection:
        return PatientConnection.connect(*positional, **named)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("harken_reads"):
            connection.exec_driver_sql(_LIMITS, _WRITING)

    return engine


@contextmanager
def unlimited(connection: Connection) -> Iterator[None]:
    """Within it, statements of this transaction take as long as they take."""
    connection.exec_driver_sql(_LIMITS, _UNLIMITED)
    driver: Any = connection.connection.driver_connection
    driver.silence_s = math.inf
    try:
        yield
    finally:
        del driver.silence_s

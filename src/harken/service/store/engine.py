"""Connections to the store: SQLite with a write-ahead log, or PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError

from harken.core.errors import HarkenError, writing
from harken.core.extras import need

#: seconds for which a process waits while another one writes; messages to people wait as long
_PATIENCE_S = 5.0
_STEP = "Give the path of an SQLite file, or postgresql://user@host/database"


def store_url(place: str | Path) -> sa.URL:
    """URL of a store: a path is an SQLite file. Raises HarkenError for databases other than SQLite and PostgreSQL."""
    text = str(place)
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = make_url(text)
    except ArgumentError:
        raise HarkenError("is no address of a store", file=text.split("@")[-1], next_step=_STEP) from None
    backend = url.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise HarkenError(f"{backend} keeps no store", file=url.render_as_string(), next_step=_STEP)
    return url


def shown_url(url: sa.URL) -> str:
    """For people, without the password."""
    return url.database or "memory" if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def make_engine(url: sa.URL) -> Engine:
    """Engine whose transactions are exclusive from their beginning where they write, see `reading`.

    Raises HarkenError where psycopg is missing or the folder of the file cannot be made.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    need("psycopg", "stores in PostgreSQL")
    from harken.service.store.postgres import postgres_engine

    return postgres_engine(url)


def reading(engine: Engine) -> Connection:
    """A connection that only reads, so that it waits for no writer."""
    return engine.connect().execution_options(harken_reads=True)


def insert_into(connection: Connection, table: sa.Table) -> Any:
    """An insert that knows `on_conflict_...` of the database."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _sqlite(url: sa.URL) -> Engine:
    if url.database not in (None, "", ":memory:"):
        folder = Path(str(url.database)).parent
        with writing(folder, "Choose another place for the store"):
            folder.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": _PATIENCE_S})

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, record: Any) -> None:
        # Python's own handling of transactions begins none before a read or a change of tables.
        connection.isolation_level = None
        _write_ahead(connection)
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON", "journal_size_limit=16777216"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later could not wait for another writer.
        reads = connection.get_execution_options().get("harken_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Set the write-ahead log, for which SQLite does not wait where other processes open the file, too."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)

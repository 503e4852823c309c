"""A whole monitor that is killed (-9) again and again; used by `service.py`."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from harken.monitor.detector import Detector
from harken.service.configuration.read import checked
from harken.service.monitor import Monitor
from harken.service.requests import Request
from harken.service.store import tables
from harken.service.store.store import Store
from peers import receiver
from postgres import Postgres, postgres_programs

with suppress(ImportError):  # before processes are forked, which would each import it
    import psycopg  # noqa: F401

RATE = 16_000
#: recordings of normal sound, and as many of a fault, in turn; per life of the monitor; between two acknowledgements
_PHASE, _PER_LIFE, _ACKNOWLEDGE = 30, 4, 5


def sound(seed: int, seconds: float, fault: bool = False) -> np.ndarray:
    """(samples,) harmonics of a wandering speed in noise; a fault adds a tone of 3 kHz."""
    rng = np.random.default_rng(seed)
    time_S = np.arange(round(seconds * RATE)) / RATE
    speed = 50 * (1 + 0.01 * rng.normal())
    samples_S = 0.1 * sum(np.sin(2 * np.pi * speed * k * time_S + rng.uniform(0, 6)) / k for k in range(1, 8))
    samples_S += 0.03 * rng.normal(size=len(time_S)) + fault * 0.05 * np.sin(2 * np.pi * 3000 * time_S)
    return samples_S.astype(np.float32)


def model_of(folder: Path, seconds: float, count: int = 40) -> Path:
    """A model of normal sound in windows of so many seconds."""
    normal, model = folder / f"normal{seconds:g}", folder / f"model{seconds:g}.harken"
    normal.mkdir(exist_ok=True)
    for row in range(count):
        sf.write(normal / f"{row:04d}.wav", sound(row, seconds), RATE)
    Detector.fit(normal, workers=0).save(model)
    return model


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, str]]:
    """An empty store of each kind that this machine has."""
    sqlite = {"SQLite": str(folder / "monitor.db")}
    if postgres_programs() is None:
        print("kills: PostgreSQL (initdb, pg_ctl) is not on this machine")
        yield sqlite
        return
    with Postgres() as server:
        yield sqlite | {"PostgreSQL": server.new_database()}


def _monitor(folder: Path, model: Path, store: str, url: str, once: bool) -> None:
    data = {
        "sources": {"in": {"kind": "folder", "path": "in", "settle_s": 0.05}},
        "machines": {"pump": {"source": "in", "model": str(model)}},
        "sinks": {"hook": {"kind": "webhook", "url": url}},
        "store": store,
        "http": None,
    }
    Monitor(checked(data, folder), once=once).run()


def kills(folder: Path, store_place: str, kind: str, count: int) -> None:
    """Kill the monitor so often while recordings come and an operator acknowledges, and count what is left of it.

    Raises AssertionError for anything that was lost, came twice under another id, or came out of order.
    """
    model, chance = model_of(folder, 1.0), random.Random(0)
    (folder / "in").mkdir()
    written, asked = 0, 0
    context, begun = multiprocessing.get_context("fork"), time.monotonic()
    Store.open(store_place).close()

    def write(number: int) -> None:
        nonlocal written
        for _ in range(number):
            fault = (written // _PHASE) % 2 == 1
            aside = folder / "aside.tmp"
            sf.write(aside, sound(10_000 + written, 1.0, fault), RATE, format="WAV")
            aside.rename(folder / "in" / f"{written:06d}.wav")
            written += 1

    with receiver() as peer:
        for life in range(count):
            write(_PER_LIFE)
            if life % _ACKNOWLEDGE == _ACKNOWLEDGE - 1:
                store = Store.open(store_place)
                store.ask(Request("pump", "acknowledge", "ada", datetime.now(UTC)))
                store.close()
                asked += 1
            process = context.Process(target=_monitor, args=(folder, model, store_place, peer.url, False))
            process.start()
            process.join(chance.uniform(0.05, 2.0))
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        write(2 * _PHASE + 2 * _PHASE - written % (2 * _PHASE))
        for _ in range(2):  # the second one has nothing to do, and says nothing
            process = context.Process(target=_monitor, args=(folder, model, store_place, peer.url, True))
            process.start()
            process.join()
        received = peer.messages
    left = _left(store_place)
    print(f"kills: {kind}, {count} in {time.monotonic() - begun:.0f} s; {_compared(left, received, written, asked)}")


@dataclass(frozen=True)
class _Left:
    """What a store holds: numbers of windows; phases of alarms by id; (alarm, action) of the history; how many requests
    are answered; the messages as sinks get them; what SQLite says of its file."""

    windows: list[int]
    alarms: dict[str, str]
    history: list[tuple[str, str]]
    answered: int
    messages: list[dict[str, Any]]
    check: str


def _left(place: str) -> _Left:
    store = Store.open(place)
    windows, alarms, history, requests = tables.windows.c, tables.alarms.c, tables.history.c, tables.requests.c
    past = sa.select(history.alarm, history.action)
    with store.reading() as connection:
        sqlite = connection.dialect.name == "sqlite"
        left = _Left(
            [*connection.scalars(sa.select(windows.number).order_by(windows.number))],
            {row.id: row.phase for row in connection.execute(sa.select(alarms.id, alarms.phase))},
            [tuple(row) for row in connection.execute(past.order_by(history.number))],
            connection.scalar(sa.select(sa.func.count()).where(requests.answer.is_not(None))) or 0,
            [message.as_json() for message in store.messages(0, 10**6)],
            connection.exec_driver_sql("PRAGMA integrity_check").scalar() if sqlite else "read",
        )  # fmt: skip
    store.close()
    return left


def _compared(left: _Left, received: list[dict[str, Any]], written: int, asked: int) -> str:
    """What was compared, in words."""
    assert left.windows == [*range(written)], "windows twice or lost"
    raised = Counter(alarm for alarm, action in left.history if action == "raised")
    assert set(raised) == set(left.alarms), "alarms lost"
    assert set(raised.values()) == {1}, "alarms raised twice"
    assert left.answered == asked, "requests without an answer"
    assert left.check in ("ok", "read"), left.check
    # Every message of the store at least once, the first time in order; the same id is the same message, and no other.
    first = {message["number"]: message for message in reversed(received)}
    assert len(first) == len({message["id"] for message in received}), "one number, two ids"
    assert all(message == first[message["number"]] for message in received), "one id, two messages"
    assert [*dict.fromkeys(message["number"] for message in received)] == sorted(first), "out of order"
    assert [*(first[number] for number in sorted(first))] == left.messages, "messages lost, or never stored"
    assert [message["number"] for message in left.messages] == [*range(1, len(left.messages) + 1)], "numbers left out"
    told = [(message["alarm"], message["event"]) for message in left.messages if message["kind"] == "alarm"]
    assert told == left.history, "alarms otherwise told than they were"
    events = ", ".join(f"{number} {event}" for event, number in Counter(event for _, event in told).items())
    return (
        f"{written} recordings, each one window; {len(left.alarms)} alarms ({events}); {asked} requests answered; "
        f"{len(left.messages)} messages stored, all received in order; {len(received) - len(first)} received twice, "
        f"under the same id; store: {left.check}"
    )

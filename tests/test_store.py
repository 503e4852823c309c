"""The store of monitors and its recorder, on SQLite, and on PostgreSQL where this machine has it."""

from __future__ import annotations

import multiprocessing
import sqlite3
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from harken.core.errors import HarkenError
from harken.service.changes import AlarmRecord, Changes, HistoryEntry, SensorRecord, WindowScore
from harken.service.recorder import Recorder
from harken.service.records import Message
from harken.service.requests import Request
from harken.service.store import tables
from harken.service.store.migrations.versions import v005_stops_and_hours
from harken.service.store.store import Store, StoreError
from harken.service.store.thinning import thin
from harken.service.store_watch import StoreWatch
from postgres import Postgres, postgres_programs

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL (initdb, pg_ctl) is not on this machine")
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return request.getfixturevalue("postgres").new_database()


def window(number: int, machine: str = "pump", score: float = 1.0) -> WindowScore:
    start = START + timedelta(seconds=10 * number)
    return WindowScore(
        machine, number, 160_000 * number, start, start + timedelta(seconds=10), "normal", score, None, 0.5, "abc"
    )


def message(text: str) -> Message:
    return Message(uuid.uuid4().hex, 0, "alarm", "pump", START, {"text": text})


def texts(messages: list[Message]) -> list[str]:
    return [each.payload["text"] for each in messages]


def test_what_belongs_to_a_window_is_taken_up_again(place: str) -> None:
    recorder = Recorder(place)
    recorder.outbox.use_sinks(["mqtt", "mail"])
    alarm = AlarmRecord("a1", "pump", "unacknowledged", START, START, sentence="a whine")
    numbered = recorder.commit(
        Changes(
            windows=[window(0)],
            states={"pump": {"phase": "unacknowledged", "odd": float("nan")}},
            resume={"microphone": {"number": 1}},
            alarms={"a1": alarm},
            history=[HistoryEntry("pump", START, "raised", alarm="a1")],
            sensors=[SensorRecord("microphone", "good", START)],
            messages=[message("first"), message("second")],
        )
    )
    assert [each.number for each in numbered] == [1, 2]
    recorder.outbox.delivered("mail", numbered[0])
    recorder.close()

    again = Recorder(place)
    loaded = again.loaded()
    assert loaded is not None
    assert loaded.states == {"pump": {"phase": "unacknowledged", "odd": None}}
    assert loaded.resume == {"microphone": {"number": 1}}
    again.outbox.use_sinks(["mqtt", "mail", "new"])
    assert texts(again.outbox.pending("mqtt")) == ["first", "second"]
    assert texts(again.outbox.pending("mail")) == ["second"]
    assert again.outbox.pending("new") == [], "a sink that was not there is not told the past"
    assert again.commit(Changes(messages=[message("third")]))[0].number == 3
    assert texts(again.outbox.pending("new")) == ["third"]
    again.close()


def test_a_window_is_stored_once(place: str) -> None:
    store = Store.open(place)
    assert store.commit(Changes(windows=[window(0), window(1)])) == 0
    assert store.commit(Changes(windows=[window(1, score=9.0), window(2)])) == 1
    with store.reading() as connection:
        rows = connection.execute(sa.select(tables.windows.c.number, tables.windows.c.score)).all()
        starts = connection.scalars(sa.select(tables.windows.c.start)).all()
    assert sorted(rows) == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert set(starts) == {START + timedelta(seconds=10 * number) for number in range(3)}
    store.close()


def test_the_tables_are_those_of_the_migrations(place: str) -> None:
    store = Store.open(place)
    with store.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.METADATA) == []
    store.close()


def _open_and_commit(place: str, monitor: str) -> int:
    store = Store.open(place, monitor)
    for number in range(5):
        store.commit(Changes(windows=[window(number)], messages=[message("m")]))
    store.close()
    return 1


def test_many_monitors_open_one_new_store_at_once(place: str) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        assert sum(pool.starmap(_open_and_commit, [(place, f"monitor {n}") for n in range(3)])) == 3
    store = Store.open(place, "monitor 0")
    with store.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.windows)) == 15
    assert len(store.load().states) == 0
    store.close()


def test_a_refused_message_is_set_aside_and_an_empty_token_is_forgotten(place: str) -> None:
    recorder = Recorder(place)
    recorder.outbox.use_sinks(["mail"])
    recorder.commit(Changes(messages=[message("bad"), message("good")], resume={"a": {"n": 1}, "b": {"n": 2}}))
    first = recorder.outbox.next_message("mail")
    assert first is not None
    recorder.outbox.set_aside("mail", first, "too long")
    recorder.commit(Changes(resume={"a": {}}))
    recorder.close()
    again = Recorder(place)
    again.outbox.use_sinks(["mail"])
    assert texts(again.outbox.pending("mail")) == ["good"]
    assert again.outbox.sinks()["mail"].refused == 1
    loaded = again.loaded()
    assert loaded is not None
    assert loaded.resume == {"b": {"n": 2}}
    again.close()


def test_requests_are_answered_once(place: str) -> None:
    store = Store.open(place)
    number = store.ask(Request("pump", "shelve", "ada", START, until=START + timedelta(hours=1), text="cleaning"))
    recorder = Recorder(place)
    (request,) = recorder.requests()
    assert (request.number, request.who, request.until) == (number, "ada", START + timedelta(hours=1))
    assert store.answer(number) is None
    recorder.commit(Changes(requests_done={number: "shelved"}))
    assert recorder.requests() == []
    assert store.answer(number) == "shelved"
    recorder.close()
    store.close()


def test_a_store_of_a_newer_release_is_refused(place: str) -> None:
    store = Store.open(place)
    with store.transaction() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '999'"))
    store.close()
    with pytest.raises(HarkenError, match="newer release"):
        Recorder(place)


@pytest.mark.parametrize("place", ["mysql://host/db", "://"])
def test_what_is_no_store_is_refused(place: str) -> None:
    with pytest.raises(HarkenError, match="store"):
        Recorder(place)


def test_messages_go_out_while_the_store_cannot_be_reached(tmp_path: Path) -> None:
    """At the start: what the store held comes after what was sent meanwhile, and nothing twice."""
    file = tmp_path / "store.db"
    before = Recorder(file)
    before.outbox.use_sinks(["mail", "mqtt"])
    before.commit(Changes(messages=[message("old 1"), message("old 2")]))
    before.outbox.delivered("mail", before.outbox.pending("mail")[-1])
    before.close()
    aside = tmp_path / "aside"
    aside.mkdir()
    for each in tmp_path.glob("store.db*"):
        each.rename(aside / each.name)
    file.mkdir()  # in the way

    monitor = Recorder(file)
    assert monitor.problem
    assert "cannot be used" in monitor.problem
    monitor.outbox.use_sinks(["mail", "mqtt"])
    monitor.commit(Changes(windows=[window(7)], messages=[message("new 1"), message("new 2")]))
    assert texts(monitor.outbox.pending("mail")) == ["new 1", "new 2"]
    monitor.outbox.delivered("mail", monitor.outbox.pending("mail")[0])
    assert texts(monitor.outbox.pending("mail")) == ["new 2"]

    file.rmdir()
    for each in aside.iterdir():
        each.rename(tmp_path / each.name)
    monitor._link.try_at_once()
    assert monitor.requests() == []
    assert not monitor.problem
    assert monitor.waiting == 0
    assert texts(monitor.outbox.pending("mail")) == ["new 2"]
    assert texts(monitor.outbox.pending("mqtt")) == ["old 1", "old 2", "new 1", "new 2"]
    assert [each.number for each in monitor.outbox.pending("mqtt")] == [1, 2, 3, 4]
    monitor.close()


def test_a_store_that_is_held_by_others_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "store.db"
    monkeypatch.setattr("harken.service.store.engine._PATIENCE_S", 0.05)
    recorder = Recorder(file)
    recorder.outbox.use_sinks(["mail"])
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    recorder.commit(Changes(windows=[window(0)], messages=[message("one")]))
    assert "locked" in recorder.problem
    recorder.commit(Changes(windows=[window(1)], messages=[message("two")]))
    assert recorder.waiting == 4
    assert texts(recorder.outbox.pending("mail")) == ["one", "two"]
    recorder.outbox.delivered("mail", recorder.outbox.pending("mail")[-1])
    other.execute("ROLLBACK")
    recorder.close()
    again = Recorder(file)
    again.outbox.use_sinks(["mail"])
    assert again.outbox.pending("mail") == []
    again.close()


def test_memory_is_bounded_while_the_store_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harken.service.recorder.MOST_WINDOWS", 3)
    file = tmp_path / "store.db"
    file.mkdir()
    recorder = Recorder(file)
    for number in range(5):
        recorder.commit(Changes(windows=[window(number)], states={"pump": {"number": number}}))
    assert recorder.lost_windows == 2
    file.rmdir()
    recorder.close()
    loaded = Recorder(file).loaded()
    assert loaded is not None
    assert loaded.states == {"pump": {"number": 4}}


def test_sinks_deliver_from_threads(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "store.db")
    sinks = [f"sink {n}" for n in range(4)]
    recorder.outbox.use_sinks(sinks)

    def deliver(sink: str) -> list[str]:
        texts_got: list[str] = []
        while len(texts_got) < 30:
            for each in recorder.outbox.pending(sink, 3):
                texts_got.append(each.payload["text"])
                recorder.outbox.delivered(sink, each)
        return texts_got

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(deliver, sink) for sink in sinks]
        for number in range(30):
            recorder.commit(Changes(messages=[message(str(number))]))
        for future in futures:
            assert future.result() == [str(number) for number in range(30)]
    recorder.close()


def test_an_unreachable_server_is_an_error_of_the_store() -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        Store.open("postgresql://nobody@127.0.0.1:9/none")


def test_old_scores_are_thinned_to_minutes_hours_and_days(place: str) -> None:
    store = Store.open(place)
    scores = np.random.default_rng(0).normal(size=720)
    store.commit(Changes(windows=[window(number, score=float(score)) for number, score in enumerate(scores)]))
    not_judged = replace(window(720), kind="not judged", score=None, reason="off")
    store.commit(Changes(windows=[not_judged, window(721, "fan")]))

    def thinned(age: timedelta) -> list[tuple[str, str, int]]:
        while thin(store, START + age):
            pass
        with store.reading() as connection:
            rows = connection.execute(sa.select(tables.thinned).order_by(tables.thinned.c.start)).all()
            left = connection.scalar(sa.select(sa.func.count()).select_from(tables.windows))
        assert left == (0 if age > timedelta(days=8) else 362)
        pump = [row for row in rows if row.machine == "pump"]
        count = sum(row.count for row in pump)
        assert min(row.minimum for row in pump if row.count) == scores[:count].min()
        assert max(row.maximum for row in pump if row.count) == scores[:count].max()
        mean = sum(row.mean * row.count for row in pump if row.count) / count
        assert mean == pytest.approx(scores[:count].mean(), abs=1e-12)
        return [(row.period, row.start.strftime("%H:%M"), row.count + row.not_judged) for row in pump]

    half = thinned(timedelta(days=7, hours=1, seconds=59))
    assert half[:2] == [("minute", "00:00", 6), ("minute", "00:01", 6)]
    assert len(half) == 60
    assert thinned(timedelta(days=31)) == [("hour", "00:00", 360), ("hour", "01:00", 360), ("hour", "02:00", 1)]
    assert thinned(timedelta(days=400)) == [("day", "00:00", 721)]
    store.close()


def test_messages_are_kept_until_every_sink_has_them(place: str) -> None:
    recorder = Recorder(place)
    recorder.outbox.use_sinks(["mail", "down"])
    recorder.commit(Changes(messages=[message("one"), message("two")]))
    for each in recorder.outbox.pending("mail"):
        recorder.outbox.delivered("mail", each)
    recorder.outbox.delivered("down", recorder.outbox.pending("down")[0])
    store = Store.open(place)
    thin(store, START + timedelta(days=60))
    assert texts(store.messages(0, 10)) == ["two"]
    store.close()
    recorder.close()


def test_a_full_disk_holds_up_no_message(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "store.db")
    recorder.outbox.use_sinks(["mail"])
    assert recorder._link.store is not None
    engine = recorder._link.store.engine
    engine.dispose()
    pages = {"most": 1}
    sa.event.listen(engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count={pages['most']}"))
    for number in range(300):
        recorder.commit(Changes(windows=[window(number)], messages=[message(str(number))]))
    assert "full" in recorder.problem
    assert texts(recorder.outbox.pending("mail", 1000)) == [str(number) for number in range(300)]
    engine.dispose()
    pages["most"] = 100_000
    recorder.close()
    again = Recorder(tmp_path / "store.db")
    again.outbox.use_sinks(["mail"])
    assert len(again.outbox.pending("mail", 1000)) == 300
    again.close()


def test_sums_per_hour_are_those_of_the_windows(place: str) -> None:
    recorder = Recorder(place)
    rng, scores = np.random.default_rng(0), {}
    for number in range(60):
        start = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=7 * number)
        score = None if number % 9 == 4 else float(rng.normal())
        each = replace(window(number), start=start, end=start + timedelta(seconds=10), score=score)
        # One transaction or several, and one that is stored again after a kill.
        recorder.commit(Changes(windows=[each, each] if number % 10 == 0 else [each]))
        scores.setdefault(start.replace(minute=0, second=0, microsecond=0), []).append(score)
    store = recorder._link.store
    assert store is not None
    with store.reading() as connection:
        rows = connection.execute(sa.select(tables.hours).order_by(tables.hours.c.start)).all()
    assert [row.start for row in rows] == [*scores]
    for row, values in zip(rows, scores.values(), strict=True):
        judged = [value for value in values if value is not None]
        assert (row.count, row.not_judged) == (len(judged), len(values) - len(judged))
        assert (row.minimum, row.maximum) == (min(judged), max(judged))
        assert row.mean == pytest.approx(np.mean(judged))
    # A store of an earlier release is summed up when it is opened.
    with store.transaction() as connection:
        connection.execute(sa.delete(tables.hours))
        connection.execute(sa.text(v005_stops_and_hours.sums_of(connection.dialect.name)))
    with store.reading() as connection:
        again = connection.execute(sa.select(tables.hours).order_by(tables.hours.c.start)).all()
    for row, before in zip(again, rows, strict=True):
        assert row[:3] + row[3:6] + row[7:] == before[:3] + before[3:6] + before[7:]
        assert row.mean == pytest.approx(before.mean)
    recorder.close()


def test_a_store_that_is_away_for_long_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    now = [0.0]
    watch = StoreWatch(lambda kind, **payload: said.append(payload["sentence"]), clock=lambda: now[0])
    with caplog.at_level("INFO"):
        for second, problem in [(0, ""), (1, "db: is down."), (3, ""), (10, "db: is down."), (30, "db: is down.")]:
            now[0] = second
            watch.look(problem)
        assert said == []
        for second in range(40, 60):
            now[0] = second
            watch.look("db: is down.")
        watch.look("")
    assert said == [
        "db: is down. Alarms go out all the same, and what is to be stored waits in memory.",
        "The store works again after 49 s.",
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "store: db: is down.",
        "store: works again after 2 s, and has what waited for it",
        "store: db: is down.",
        "store: works again after 49 s, and has what waited for it",
    ]

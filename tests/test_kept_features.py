"""Features of windows in the store: as they were heard, thinned with age, within their quota."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command

from conftest import hum
from harken.embeddings.embedder import ClipFeatures, Embedder, make_spec
from harken.monitor.verdict import Verdict
from harken.service.changes import Changes
from harken.service.episode_rule import EpisodeRule
from harken.service.kept_features import WindowFeatures, features_name
from harken.service.learning import heard_windows
from harken.service.recorder import Recorder
from harken.service.records import HeardWindow, Window
from harken.service.store import migrate, tables
from harken.service.store.features import FeatureLimits, kept_windows, with_data
from harken.service.store.store import Store
from harken.service.store.thinning import thin
from harken.service.version_counts import count_versions
from postgres import Postgres, postgres_programs

START = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = make_spec(sample_rate=16_000, channels=1, monitoring=True)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL (initdb, pg_ctl) is not on this machine")
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture(scope="module")
def clip() -> ClipFeatures:
    return Embedder(SPEC).analyse(hum(1), sample_rate=16_000)


def kept(number: int, clip: ClipFeatures, *, machine: str = "pump", notable: bool = False) -> WindowFeatures:
    start = START + timedelta(seconds=10 * number)
    window = Window(np.zeros((1, 160_000), np.float32), 16_000, number, 160_000 * number, start)
    verdict = Verdict(Path("<sound>"), "normal", 1.0, features=clip)
    made = WindowFeatures.of(HeardWindow(machine, window, verdict, "m", features_name(SPEC)), notable=notable)
    assert made is not None
    return made


def numbers(store: Store, machine: str = "pump") -> list[int]:
    with store.reading() as connection:
        return [each.number for each in kept_windows(connection, store.monitor, machine, features_name(SPEC))]


def test_features_come_back_to_the_last_bit(place: str, clip: ClipFeatures) -> None:
    store = Store.open(place)
    store.commit(Changes(features=[kept(0, clip), kept(1, clip)]))
    store.commit(Changes(features=[kept(1, clip)], notable={"pump": START + timedelta(seconds=5)}))
    with store.reading() as connection:
        windows = kept_windows(connection, "monitor", "pump", features_name(SPEC))
        first, second = with_data(connection, "monitor", windows)
        # Those of another encoder are others.
        assert kept_windows(connection, "monitor", "pump", "another") == []
        assert kept_windows(connection, "monitor", "pump", features_name(SPEC), until=START) == []
    assert (first.notable, second.notable) == (False, True)
    assert first.start == START
    again = first.features()
    assert again.embedding.tobytes() == clip.embedding.tobytes()
    assert again.short_time_D.tobytes() == clip.short_time_D.tobytes()
    assert again.steady_B.tobytes() == clip.steady_B.tobytes()
    np.testing.assert_array_equal(again.sketch_BC, clip.sketch_BC)
    assert (again.level_db, again.seconds, again.sha256) == (clip.level_db, clip.seconds, clip.sha256)
    assert again.health is not None
    assert clip.health is not None
    assert again.health.values_CK.tobytes() == clip.health.values_CK.tobytes()
    with pytest.raises(ValueError, match="no features"):
        replace(first, data=first.data[:100] + b"x" + first.data[101:]).features()
    store.close()


def test_features_of_a_later_version_are_left_out(
    clip: ClipFeatures, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    windows = [kept(0, clip), replace(kept(1, clip), data=b"damaged")]
    monkeypatch.setattr("harken.embeddings.packed.SCHEMA", 99)
    later = [kept(number, clip) for number in (2, 3)]
    monkeypatch.undo()
    assert [each.name for each in heard_windows([*windows, *later])] == ["pump 2026-03-01 00:00:00"]
    assert caplog.messages == [
        "features of 3 windows cannot be read, and are left out; machine pump: 2026-03-01 00:00:10: "
        "no features (Error -3 while decompressing data: incorrect header check)"
    ]
    assert count_versions(Path("none.harken"), later, lambda detector: EpisodeRule.of(detector)) == {}


def test_old_ones_are_thinned_and_those_around_alarms_later(place: str, clip: ClipFeatures) -> None:
    store = Store.open(place)
    windows = [kept(number, clip, notable=90 <= number < 110) for number in range(720)]
    store.commit(Changes(features=windows))

    def left(age: timedelta) -> list[int]:
        while thin(store, START + age):
            pass
        return numbers(store)

    assert len(left(timedelta(hours=23))) == 720
    half = left(timedelta(days=1, hours=1))
    assert half[:3] == [0, 6, 12]
    assert set(range(90, 110)) <= set(half)
    assert len([number for number in half if number < 360]) == 60 - 3 + 20
    assert len([number for number in half if number >= 360]) == 360
    assert left(timedelta(days=31))[:1] == [0]
    assert len(left(timedelta(days=31))) == 2 + 4, "per hour, and of the alarm per minute"
    assert left(timedelta(days=366)) == []
    store.close()


def test_they_stay_within_their_quota(place: str, clip: ClipFeatures) -> None:
    store = Store.open(place)
    one = len(kept(0, clip).data)
    windows = [kept(number, clip, notable=number < 20) for number in range(60)]
    store.commit(Changes(features=[*windows, *(replace(window, machine="fan") for window in windows[:3])]))
    while thin(store, START + timedelta(hours=1), FeatureLimits(quota=2 * 40 * one)):
        pass
    # Of its 40, all of the alarm and the latest ordinary ones; the other machine has room.
    assert numbers(store) == [*range(20), *range(40, 60)]
    assert numbers(store, "fan") == [0, 1, 2]
    while thin(store, START + timedelta(hours=1), FeatureLimits(quota=2 * 20 * one)):
        pass
    assert numbers(store) == [*range(5, 20), *range(55, 60)], "ordinary ones keep a quarter"
    store.close()


def test_memory_is_bounded_while_the_store_cannot_be_reached(
    tmp_path: Path, clip: ClipFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kept(0, clip)
    monkeypatch.setattr("harken.service.recorder.MOST_FEATURES", 3 * len(one.data))
    file = tmp_path / "store.db"
    file.mkdir()
    recorder = Recorder(file)
    for number in range(8):
        recorder.commit(Changes(features=[kept(number, clip)]))
    file.rmdir()
    recorder.close()
    store = Store.open(file)
    assert numbers(store) == [5, 6, 7]
    store.close()
    nothing = Recorder(file, features=FeatureLimits(quota=0))
    nothing.commit(Changes(features=[kept(9, clip)]))
    nothing.close()
    assert numbers(Store.open(file)) == [5, 6, 7]


def test_a_store_of_the_first_release_is_brought_up_to_date(tmp_path: Path, clip: ClipFeatures) -> None:
    store = Store.open(tmp_path / "store.db")
    store.seen(START)
    with store.transaction() as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "001")
        assert "features" not in sa.inspect(connection).get_table_names()
        request = {"monitor": "monitor", "machine": "pump", "demand": "acknowledge", "who": "ada", "text": ""}
        rows = sa.table("requests", *map(sa.column, [*request, "time"]))
        connection.execute(rows.insert(), request | {"time": "2026-03-01 00:00:00"})
    store.close()
    again = Store.open(tmp_path / "store.db")
    with again.reading() as connection:
        assert connection.scalar(sa.select(tables.monitors.c.seen)) == START
    (asked,) = again.requests()
    assert (asked.who, asked.time, asked.alarm, asked.force) == ("ada", START, "", False)
    again.commit(Changes(features=[kept(0, clip)]))
    assert numbers(again) == [0]
    again.close()

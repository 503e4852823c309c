"""One monitor of a name on one store: a second one is refused, and one that lost the store to another ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from conftest import hum
from harken.core.errors import HarkenError
from harken.service.configuration.model import Configuration
from harken.service.configuration.read import checked
from harken.service.monitor import Monitor
from harken.service.recorder import Recorder
from harken.service.store.claim import TakenError
from listening import detector_in, write
from peers import wait_for
from postgres import Postgres, postgres_programs


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL (initdb, pg_ctl) is not on this machine")
    with Postgres() as running:
        yield running


def plant(folder: Path, store: str) -> Configuration:
    """A monitor named `hall`, of one machine in a folder."""
    (folder / "in").mkdir()
    (folder / "normal").mkdir()
    detector_in(folder / "normal").save(folder / "pump.harken")
    data: dict[str, Any] = {
        "monitor": "hall",
        "sources": {"in": {"kind": "folder", "path": "in", "settle_s": 0.05}},
        "machines": {"pump": {"source": "in", "model": "pump.harken"}},
        "store": store,
        "http": None,
        "page": None,
    }
    return checked(data, folder)


def test_a_second_one_of_the_same_name_is_refused(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harken.service.store.claim.PATIENCE_S", 0.3)
    configuration = plant(tmp_path, server.new_database())
    first = Monitor(configuration)
    with pytest.raises(HarkenError, match=r"another process that is the monitor hall \(at 127.0.0.1, since 2.*another"):
        Monitor(configuration)
    Recorder(configuration.store, "another hall").close()
    first.recorder.close()
    second = Monitor(configuration)
    second.recorder.close()


def test_one_that_lost_the_store_to_another_ends(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections are cut, as by a network, and another one is there before it is back."""
    monkeypatch.setattr("harken.service.store.claim.PATIENCE_S", 0.3)
    configuration = plant(tmp_path, server.new_database())
    monitor, errors = Monitor(configuration), []

    def run() -> None:
        try:
            monitor.run()
        except HarkenError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    write(tmp_path / "in" / "0.wav", hum(50))
    wait_for(lambda: (loaded := monitor.recorder.loaded()) is not None and loaded.resume)
    store = monitor.recorder.readable
    assert store is not None
    with store.transaction() as connection:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        connection.execute(sa.text(cut))
    other = Recorder(configuration.store, "hall")
    write(tmp_path / "in" / "1.wav", hum(51))
    thread.join(30)
    (error,) = errors
    assert isinstance(error, TakenError)
    # Nothing was written over what the other one has, and it goes on.
    assert other.requests() == []
    assert not other.problem
    with store.reading() as connection:
        assert connection.scalar(sa.text("SELECT COUNT(*) FROM windows")) == 1
        assert connection.scalar(sa.text("SELECT stopped FROM monitors WHERE name = 'hall'")) is None
    other.close()


def test_a_connection_that_was_cut_is_made_again(server: Postgres) -> None:
    recorder = Recorder(server.new_database(), "hall")
    server.stop()
    server.start()
    recorder.seen()
    recorder._link.try_at_once()
    recorder._next_sign = 0.0
    recorder.requests()
    assert (recorder.problem, recorder.taken) == ("", None)
    recorder.close()


@pytest.mark.parametrize("store", ["monitor.db", "sqlite:///{folder}/monitor.db"])
def test_a_second_one_on_an_sqlite_file_is_refused(store: str, tmp_path: Path) -> None:
    configuration = plant(tmp_path, store.format(folder=tmp_path))
    first = Monitor(configuration)
    with pytest.raises(HarkenError, match="a monitor that runs"):
        Monitor(configuration)
    first.recorder.close()
    first._alone.close()

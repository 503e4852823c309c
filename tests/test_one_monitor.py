"""One monitor of a name on one store: a second one is refused, and one that lost the store to another ends."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from conftest import hum
from forwarder import Forwarder
from harken.core.errors import HarkenError
from harken.service.alone import alone
from harken.service.changes import Changes
from harken.service.configuration.model import Configuration, EvidenceEntry
from harken.service.configuration.read import checked
from harken.service.monitor import Monitor
from harken.service.recorder import Recorder
from harken.service.store import lease
from harken.service.store.engine import make_engine, store_url
from harken.service.store.lease import BusyError, Lease, TakenError
from harken.service.store.migrate import migrate
from harken.service.store.store import Store, StoreError, UndecidedError
from harken.service.store_link import StoreLink
from listening import detector_in, write
from peers import free_port, wait_for
from postgres import Postgres, postgres_programs


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL (initdb, pg_ctl) is not on this machine")
    with Postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Of a store with its tables."""
    postgres = request.param == "postgresql"
    place = request.getfixturevalue("server").new_database() if postgres else tmp_path / "store.db"
    engine = make_engine(store_url(place))
    migrate(engine, "store")
    yield engine
    engine.dispose()


class Process:
    """A process that would be the monitor `hall`, with a clock of its own."""

    def __init__(self, engine: sa.Engine, owner: str = "") -> None:
        self.engine, self.now = engine, 0.0
        self.lease = Lease(engine, "hall", "store", owner, clock=lambda: self.now)

    def holds(self) -> bool:
        """Whether it has the name now."""
        try:
            self.lease.hold()
        except BusyError:
            return False
        return True

    def waits(self, seconds: int) -> bool:
        """Whether it has the name at last, after a look per second."""
        for _ in range(seconds):
            self.now += 1
            if self.holds():
                return True
        return False

    def writes(self) -> None:
        """A transaction."""
        with self.engine.begin() as connection:
            self.lease.renew(connection)


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


def test_a_name_is_free_once_nobody_renews_it_and_not_before(engine: sa.Engine) -> None:
    first, second = Process(engine), Process(engine)
    assert first.holds()
    assert not second.holds()
    # Its last transaction may come late.
    first.writes()
    assert not second.waits(int(lease.EXPIRES_S))
    assert second.waits(1)
    second.writes()
    # The first one was only away: what it writes now is not stored, and it ends at once.
    with pytest.raises(HarkenError, match="another process has become the monitor hall"):
        first.writes()
    with pytest.raises(TakenError, match=r"process \d+, since 2"):
        first.holds()
    second.writes()


def test_time_without_the_database_is_no_silence_of_the_other_one(engine: sa.Engine) -> None:
    first, second = Process(engine), Process(engine)
    assert first.holds()
    assert not second.waits(9)
    second.now += lease.EXPIRES_S
    # The one that waits is the first to reach it again.
    assert not second.waits(int(lease.EXPIRES_S))
    first.writes()
    assert not second.waits(int(lease.EXPIRES_S))
    assert second.waits(1)


def test_a_recorder_that_waits_looks_every_second(tmp_path: Path) -> None:
    link = StoreLink(tmp_path / "store.db", "hall")
    for error in [StoreError("cannot be used"), UndecidedError("is in use")] * 6:
        link.failed(error)
    assert link.due(time.monotonic() + 1)
    link.failed(StoreError("cannot be used"))
    assert not link.due(time.monotonic())


@contextmanager
def unconfirmed(engine: sa.Engine, done: bool) -> Iterator[None]:
    """Within it a connection is cut at its commit. done: after the database did it."""

    def cut(connection: sa.Connection) -> None:
        if done:
            connection.connection.commit()
        raise sa.exc.OperationalError("COMMIT", None, Exception("the connection is closed"))

    sa.event.listen(engine, "commit", cut)
    try:
        with pytest.raises(sa.exc.OperationalError):
            yield
    finally:
        sa.event.remove(engine, "commit", cut)


def test_a_takeover_that_was_not_stored_is_none(engine: sa.Engine) -> None:
    first, second = Process(engine), Process(engine)
    assert first.holds()
    assert not second.waits(int(lease.EXPIRES_S))
    with unconfirmed(engine, done=False):
        second.waits(1)
    for _ in range(2):
        first.writes()
    with pytest.raises(TakenError):
        second.holds()
    first.writes()


def test_a_takeover_that_was_stored_unconfirmed_is_one(engine: sa.Engine) -> None:
    first, second = Process(engine), Process(engine)
    with unconfirmed(engine, done=True):
        first.holds()
    assert first.holds()
    first.writes()
    assert not second.waits(int(lease.EXPIRES_S))
    with unconfirmed(engine, done=True):
        second.waits(1)
    with pytest.raises(HarkenError, match="another process has become the monitor hall"):
        first.writes()
    assert second.holds()
    second.writes()


def test_a_copy_of_the_folder_is_another_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cloned disk or from a backup, here or elsewhere; the folder itself has the same after each start."""
    configuration = plant(tmp_path, "postgresql://db/harken")

    def owner(folder: str) -> str:
        evidence = EvidenceEntry(folder=tmp_path / folder)
        with alone(configuration.model_copy(update={"evidence": evidence})) as value:
            return value

    owners = [owner("first")]
    assert owner("first") == owners[0] != ""
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    owners.append(owner("copy"))
    # Of a container, with the machine's identity and perhaps its place, and of a clone with the same host name.
    monkeypatch.setattr("socket.gethostname", lambda: "3f2a")
    owners.append(owner("first"))
    monkeypatch.setattr("uuid.getnode", lambda: 0x02420A000002)
    owners.append(owner("first"))
    # Without a network interface there is a random address for each process.
    monkeypatch.setattr("uuid.getnode", lambda: 0x010000000001)
    owners.append(owner("first"))
    monkeypatch.setattr("uuid.getnode", lambda: 0x010000000002)
    assert owner("first") == owners[-1]
    assert len({*owners}) == 5


def test_whoever_sees_that_the_other_one_runs_is_refused(engine: sa.Engine) -> None:
    first, second = Process(engine), Process(engine)
    assert first.holds()
    assert not second.holds()
    first.writes()
    assert not second.holds()
    first.writes()
    with pytest.raises(TakenError, match="is in use by another process that is the monitor hall"):
        second.holds()
    first.writes()


def test_the_same_owner_or_a_name_that_was_left_need_no_waiting(engine: sa.Engine) -> None:
    killed, again, other = Process(engine, "seat"), Process(engine, "seat"), Process(engine)
    assert killed.holds()
    assert again.holds()
    with engine.begin() as connection:
        killed.lease.release(connection)
    assert not other.holds()
    with engine.begin() as connection:
        again.lease.release(connection)
    assert other.holds()


@pytest.mark.parametrize("lost", ["DELETE FROM leases", "UPDATE leases SET term = 1, process = 'x', owner = 'x'"])
def test_a_copy_of_the_database_that_lags_takes_no_name_away(engine: sa.Engine, lost: str) -> None:
    before, process = Process(engine, "seat"), Process(engine, "seat")
    assert before.holds()
    assert process.holds()
    with engine.begin() as connection:
        connection.execute(sa.text(lost))
    with pytest.raises(HarkenError):
        process.writes()
    assert process.holds()
    process.writes()


def test_of_many_that_start_at_once_one_has_the_name(engine: sa.Engine) -> None:
    processes, start = [Process(engine) for _ in range(6)], threading.Barrier(6)
    holding: list[Process] = []

    def run(process: Process) -> None:
        start.wait()
        if process.holds():
            holding.append(process)

    threads = [threading.Thread(target=run, args=(process,)) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (holder,) = holding
    holder.writes()


def test_a_second_one_of_the_same_name_is_refused(server: Postgres, tmp_path: Path) -> None:
    configuration = plant(tmp_path, server.new_database())
    first = Monitor(configuration)
    with pytest.raises(HarkenError, match="a monitor of this name that runs"):
        Monitor(configuration)
    elsewhere = configuration.model_copy(update={"evidence": EvidenceEntry(folder=tmp_path / "elsewhere")})
    refused = []

    def start() -> None:
        try:
            Monitor(elsewhere)
        except HarkenError as error:
            refused.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    while thread.is_alive():
        first.recorder.seen()
        thread.join(0.05)
    assert "in use by another process that is the monitor hall (at " in refused[0]
    Recorder(configuration.store, "another hall").close()
    first.recorder.close()
    second = Monitor(elsewhere)
    second.recorder.close()


def test_one_that_was_killed_starts_again_at_once(server: Postgres, tmp_path: Path) -> None:
    """Its connections may be kept by a proxy for ever."""
    configuration = plant(tmp_path, server.new_database())
    killed = Monitor(configuration)
    killed._alone.close()  # as the system does
    again = Monitor(configuration)
    killed.recorder.seen()
    killed.recorder._link.try_at_once()
    killed.recorder.commit(Changes())
    assert isinstance(killed.recorder.taken, TakenError)
    again.recorder.seen()
    assert again.recorder.problem == ""
    again.recorder.close()


def test_one_that_lost_the_store_to_another_ends(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was away, as a computer that sleeps, for longer than another one has waited for."""
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
    monkeypatch.setattr(lease, "EXPIRES_S", 0.0)
    other = Recorder(configuration.store, "hall")
    write(tmp_path / "in" / "1.wav", hum(51))
    thread.join(60)
    (error,) = errors
    assert isinstance(error, TakenError)
    # Nothing was written over what the other one has, and it goes on.
    assert other.requests() == []
    assert not other.problem
    with store.reading() as connection:
        assert connection.scalar(sa.text("SELECT COUNT(*) FROM windows")) == 1
        assert connection.scalar(sa.text("SELECT stopped FROM monitors WHERE name = 'hall'")) is None
    other.close()


def test_a_proxy_that_keeps_dead_sessions_takes_no_name_away(server: Postgres) -> None:
    """Nor does a row that such a session has locked, for longer than the server has patience."""
    with Forwarder(server.port) as proxy:
        store = Store.open(server.new_database().replace(str(server.port), str(proxy.port)), "hall")
        store.hold()

        def is_cut() -> None:
            with store.transaction() as connection:
                connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 300"))
                proxy.forget()
                connection.execute(sa.text("SELECT 1"))

        with pytest.raises(StoreError):
            is_cut()
        store.save_sinks([])
        store.hold()
        store.close()


def test_a_server_that_says_nothing_is_given_up(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy on the way that was stopped: the network confirms all that is sent."""
    monkeypatch.setattr("harken.service.store.postgres.PatientConnection.silence_s", 0.3)
    with Forwarder(server.port) as proxy:
        store = Store.open(server.new_database().replace(str(server.port), str(proxy.port)), "hall")
        store.hold()

        def is_stopped() -> None:
            with store.transaction() as connection:
                proxy.passes.clear()
                connection.execute(sa.text("SELECT 1"))

        with pytest.raises(StoreError, match="the server has not answered for"):
            is_stopped()
        proxy.passes.set()
        store.commit(Changes())
        store.close()


def test_through_a_pooler_that_shares_sessions(server: Postgres) -> None:
    """PgBouncer gives each transaction the session that is free; a second one of the name is refused all the same."""
    if (program := shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")) is None:
        pytest.skip("PgBouncer (pgbouncer) is not on this machine")
    url, port = sa.make_url(server.new_database()), free_port()
    settings = server.folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=harken\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
        f"listen_port={port}\nunix_socket_dir=\nauth_type=any\npool_mode=transaction\ndefault_pool_size=2\n"
    )
    with subprocess.Popen([program, "-q", settings], user=server.user, stderr=subprocess.DEVNULL) as pooler:
        try:
            place = url.set(port=port).render_as_string(hide_password=False)
            wait_for(lambda: reached(place))
            first, other = Store.open(place, "hall"), Store.open(place, "hall")
            first.hold()
            for _ in range(20):
                first.commit(Changes())
                with pytest.raises((StoreError, TakenError), match="in use by another process"):
                    other.hold()
            first.close()
            other.hold()
            other.commit(Changes())
            other.close()
        finally:
            pooler.kill()


def reached(place: str) -> bool:
    """Whether a store can be used."""
    try:
        Store.open(place).close()
    except StoreError:
        return False
    return True


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

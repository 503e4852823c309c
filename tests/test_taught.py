"""What people say of a machine's sound changes its model while the monitor listens."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

from conftest import hum
from harken.core.errors import HarkenError
from harken.monitor.detector import Detector
from harken.monitor.feedback.change import set_alarm
from harken.monitor.feedback.on_disk import change_model
from harken.monitor.versions import list_versions
from harken.service.configuration.read import checked
from harken.service.kept_features import features_name
from harken.service.learning import teach
from harken.service.monitor import Monitor
from harken.service.requests import Request, check_request
from harken.service.store.overview import alarms
from harken.service.store.store import Store
from harken.service.store.versions import machine_versions, sharing_machines
from peers import wait_for

# Features of older windows are thinned.
T0 = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)


@pytest.fixture(scope="module")
def fitted(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    def make(folder: Path) -> None:
        (folder / "normal").mkdir()
        for index in range(40):
            sf.write(folder / "normal" / f"{index:03d}.wav", hum(index), 16_000)
        Detector.fit(folder / "normal", workers=0).save(folder / "pump.harken")

    return once("taught_pump", make) / "pump.harken"


@pytest.fixture
def plant(tmp_path: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("harken.service.monitor.TICK_S", 0.05)
    monkeypatch.setattr("harken.service.learner._LOOK_S", 0.1)
    shutil.copytree(fitted, tmp_path / "pump.harken")
    (tmp_path / "in").mkdir()
    return tmp_path


def record(folder: Path, first: int, count: int, machine: str = "in", **options: Any) -> None:
    """Recordings, one a minute; `fault`: another tone."""
    for index in range(first, first + count):
        aside = folder / f".{index}.tmp"
        sf.write(aside, hum(1000 + index, **options), 16_000, format="WAV")
        (folder / machine).mkdir(exist_ok=True)
        aside.rename(folder / machine / f"pump_{T0 + timedelta(minutes=index):%Y-%m-%d_%H-%M-%S}.wav")


@contextmanager
def running(folder: Path, machines: tuple[str, ...] = ("pump",), **options: Any) -> Iterator[Monitor]:
    """A monitor of machines that share a model, each with a folder of its own."""
    data = {
        "sources": {
            name: {"kind": "folder", "path": "in" if name == "pump" else name, "settle_s": 0.05} for name in machines
        },
        "machines": {name: {"source": name, "model": "pump.harken"} for name in machines},
        "http": None,
        "page": None,
        **options,
    }
    monitor = Monitor(checked(data, folder))
    thread = threading.Thread(target=monitor.run)
    thread.start()
    try:
        yield monitor
    finally:
        monitor.stop()
        thread.join(20)


def ask(folder: Path, demand: Any, **more: Any) -> str:
    """The monitor's answer to Ada."""
    store = Store.open(folder / "monitor.db")
    number = store.ask(Request("pump", demand, "Ada", datetime.now(UTC), **more))
    answer = wait_for(lambda: store.answer(number), seconds=60)
    store.close()
    return str(answer)


def heard(monitor: Monitor) -> int:
    """Windows of the pump that are stored."""
    state = monitor.recorder.loaded()
    return 0 if state is None else int(state.resume.get("pump", {}).get("number", 0))


def last_alarm(folder: Path) -> Any:
    store = Store.open(folder / "monitor.db")
    found = alarms(store, limit=1)
    store.close()
    return found[0] if found else None


def test_a_new_state_is_learned_and_quiet_and_can_be_undone(plant: Path) -> None:
    record(plant, 0, 6)
    with running(plant) as monitor:
        alarm = monitor.fleet.machines["pump"].alarm
        record(plant, 6, 14, fault=True)
        raised = wait_for(lambda: last_alarm(plant))
        wait_for(lambda: heard(monitor) == 20)
        answer = ask(plant, "normal", alarm=raised.id, text="a new recipe")
        assert "version 2" in answer
        wait_for(lambda: alarm.state.phase == "acknowledged")
        record(plant, 20, 30, fault=True)
        wait_for(lambda: alarm.state.phase == "normal")
        assert last_alarm(plant).acknowledged_by == "Ada"
        versions = list_versions(plant / "pump.harken")
        assert [(version.kind, version.who, version.why) for version in versions][1:] == [
            ("update", "Ada", "a new recipe")
        ]
        # All of it undone: the sound is abnormal again.
        assert "as in version 1 again: version 3" in ask(plant, "rollback")
        record(plant, 50, 6, fault=True)
        wait_for(lambda: last_alarm(plant).id != raised.id)

        def counted() -> Any:
            store = Store.open(plant / "monitor.db")
            with store.reading() as connection:
                listed = machine_versions(connection, "monitor", "pump")
            store.close()
            return listed if len(listed) == 3 and all(version.counted for version in listed) else None

        third, second, first = wait_for(counted)
        assert (third.in_use, second.in_use, third.target) == (True, False, 1)
        assert second.counted.alarms == 0 < first.counted.alarms
        assert second.counted.crossings < first.counted.crossings


def test_what_was_a_fault_is_not_learned_as_normal_unless_it_is_forced(plant: Path) -> None:
    with running(plant) as monitor:
        record(plant, 0, 14, fault=True)
        alarm = monitor.fleet.machines["pump"].alarm
        wait_for(lambda: heard(monitor) == 14)
        raised = last_alarm(plant)
        assert "kept as a known fault" in ask(plant, "fault", alarm=raised.id, text="seal")
        # Who says that it is a fault has seen it; it is one all the same.
        assert (alarm.state.phase, last_alarm(plant).acknowledged_by) == ("acknowledged", "Ada")
        span = {"since": T0, "until": T0 + timedelta(minutes=14)}
        refused = ask(plant, "normal", **span)
        assert refused.startswith("refused: ")
        assert "known faults" in refused
        assert "force" in refused
        assert len(list_versions(plant / "pump.harken")) == 2
        assert "version 3" in ask(plant, "normal", force=True, **span)
        assert list_versions(plant / "pump.harken")[-1].forced
        later = {"since": T0 + timedelta(days=1), "until": T0 + timedelta(days=2)}
        assert "nothing is kept" in ask(plant, "normal", **later)
        assert "no such alarm" in ask(plant, "normal", alarm="0" * 12)


def test_machines_that_share_a_model_learn_together_and_two_people_do_it_once(plant: Path) -> None:
    (plant / "spare").mkdir()
    with running(plant, ("pump", "spare")) as monitor:
        record(plant, 0, 14, fault=True)
        wait_for(lambda: last_alarm(plant))
        pump, spare = monitor.fleet.machines["pump"], monitor.fleet.machines["spare"]
        wait_for(lambda: heard(monitor) == 14)
        store = Store.open(plant / "monitor.db")
        with store.reading() as connection:
            assert sharing_machines(connection, "monitor", "pump") == ["spare"]
        numbers = [
            store.ask(Request("pump", "normal", who, datetime.now(UTC), alarm=last_alarm(plant).id))
            for who in ("Ada", "Grace")
        ]
        first, second = (str(wait_for(lambda number=number: store.answer(number))) for number in numbers)
        store.close()
        assert "version 2" in first
        assert first.endswith("also of spare")
        assert second.startswith("refused: none of these")
        assert "is learned already" in second
        wait_for(lambda: spare.model.digest == pump.model.digest)
        assert spare.model.detector.fitted.version.number == 2


def test_a_request_that_was_cut_off_is_done_once(plant: Path) -> None:
    """Killed after the model was written, before the store was: the next start finds the version."""
    with running(plant) as monitor:
        record(plant, 0, 14, fault=True)
        wait_for(lambda: heard(monitor) == 14)
    store = Store.open(plant / "monitor.db")
    number = store.ask(Request("pump", "normal", "Ada", datetime.now(UTC), alarm=last_alarm(plant).id))
    (request,) = [each for each in store.requests() if each.number == number]
    detector = Detector.load(plant / "pump.harken")
    taught = teach(plant / "pump.harken", request, store, features_name(detector.spec))
    assert store.answer(number) is None
    with running(plant) as monitor:
        assert wait_for(lambda: store.answer(number)) == taught.answer
        wait_for(lambda: monitor.fleet.machines["pump"].alarm.state.phase == "acknowledged")
        assert monitor.fleet.machines["pump"].model.detector.fitted.version.number == 2
    assert len(list_versions(plant / "pump.harken")) == 2
    store.close()


def test_what_others_do_to_a_model_is_taken_up(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    from harken.service import learner

    monkeypatch.setattr(learner, "_LOOK_S", 0.1)
    with running(plant) as monitor:
        record(plant, 0, 3)
        wait_for(lambda: monitor.fleet.machines["pump"].alarm.to_json()["memory"]["block_start"])
        change_model(plant / "pump.harken", set_alarm, "1%", None, who="Grace", why="too many")
        wait_for(lambda: monitor.fleet.machines["pump"].model.detector.fitted.version.number == 2)


def test_a_new_baseline_is_learned_from_what_was_heard_since(plant: Path) -> None:
    with running(plant) as monitor:
        record(plant, 0, 6)
        record(plant, 6, 40, fault=True)
        wait_for(lambda: heard(monitor) == 46)
        answer = ask(plant, "rebaseline", since=T0 + timedelta(minutes=6), text="new bearing")
        assert "learned anew from" in answer
        assert monitor.fleet.machines["pump"].model.detector.score(hum(5000, fault=True), 16_000).kind == "normal"


@pytest.mark.parametrize(
    "wrong",
    [
        {"demand": "normal"},
        {"demand": "normal", "alarm": "a", "since": T0},
        {"demand": "normal", "since": datetime(2999, 1, 1, tzinfo=UTC)},
        {"demand": "fault", "since": T0, "until": T0},
        {"demand": "fault", "alarm": "a", "force": True},
        {"demand": "rebaseline"},
        {"demand": "rollback", "version": 0},
        {"demand": "rollback", "who": " "},
        {"demand": "acknowledge", "since": T0},
        {"demand": "shelve"},
    ],
)
def test_requests_that_say_too_little_or_too_much_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(HarkenError):
        check_request(Request(**{"machine": "pump", "who": "Ada", "time": datetime.now(UTC), **wrong}))

"""Sensor truth before machine truth: statuses of NAMUR NE 107 that hold over windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

import harken
from harken.core.errors import AudioError
from harken.monitor.verdict import Verdict
from harken.service.feed import SourceStatus
from harken.service.judging import WindowJudge
from harken.service.records import Block, HeardWindow, Window
from harken.service.sensor import SensorChange, SensorState, SensorWatch
from harken.service.windows import Windower
from sensors import HARMLESS, KINDS, integers, machines

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
GOOD = Verdict(Path("x"), kind="normal", score=1.0)
ALARM = Verdict(Path("x"), kind="alarm", score=9.0)
GAPS = Verdict(Path("x"), not_judged="has gaps", unheard="sensor", score=9.0)
LEVEL = Verdict(Path("x"), not_judged="level 40 dB below any", unheard="level")
OFF = Verdict(Path("x"), not_judged="the machine is off", unheard="off")
SILENT = Verdict(Path("x"), error=AudioError("is silent (below -90 dBFS)"))
CLIPPED = Verdict(Path("x"), kind="suspect", score=3.0, concerns=("is clipped",))
VERDICTS = {"good": GOOD, "gaps": GAPS, "level": LEVEL, "off": OFF, "silent": SILENT, "clipped": CLIPPED}


def heard(verdict: Verdict) -> HeardWindow:
    window = Window(np.zeros((1, 16), np.float32), 16, 0, 0, BEGAN)
    return HeardWindow("pump", window, verdict, "")


def hear(watch: SensorWatch, *verdicts: Verdict) -> list[SensorChange]:
    return [change for verdict in verdicts if (change := watch.hear(heard(verdict))) is not None]


def test_every_fault_of_the_sensor_shows_within_two_windows_and_never_as_an_alarm(shared: Path) -> None:
    """26 kinds of faults in a recording of a real fan; they end, and the sensor is good again."""
    learned, normal, _ = machines(shared / "corpus")["MIMII fan id_00"]
    detector = harken.Detector.fit(learned, false_alarms="1%", workers=0)
    judge = WindowJudge("fan", detector)

    def windows(clip: int, spoil: object = None) -> list[HeardWindow]:
        sound, rate = sf.read(normal[clip])
        if spoil is not None:
            sound = integers(spoil(sound, rate, np.random.default_rng([clip, 7]))) / 2**15  # type: ignore[operator]
        sound = np.resize(sound, round(detector.segment_s * rate))
        block = Block(sound.astype(np.float32)[None], rate, 0, BEGAN)
        return [one for window in Windower(detector.segment_s).push(block) for one in judge.hear(window)]

    usual = windows(0)
    wrong = []
    for kind, spoil in {**HARMLESS, **KINDS}.items():
        watch = SensorWatch()
        first, second = windows(1, spoil), windows(2, spoil)
        changes = [watch.hear(one) for one in [*usual, *usual, *first, *second]]
        faulty = not watch.trusted or watch.state.off
        if faulty != (kind in KINDS) or any(changes[:2]):
            wrong.append(kind)
        if kind in KINDS and any(one.verdict.kind == "alarm" for one in [*first, *second]):
            wrong.append(f"{kind}: an alarm")
        for _ in range(3):
            watch.hear(usual[0])
        if watch.state.status != "good" or watch.state.off:
            wrong.append(f"{kind}: not good again")
    assert not wrong


def test_a_single_bad_window_changes_nothing_and_two_do() -> None:
    watch = SensorWatch()
    assert not hear(watch, GOOD, GAPS, GOOD, SILENT, GOOD, LEVEL, GOOD)
    (change,) = hear(watch, GAPS, SILENT)
    assert change.state.status == "failure"
    assert change.sentence == "Sensor: failure: is silent (below -90 dBFS). The machine is not monitored."
    assert watch.guarded(heard(ALARM)).verdict.kind == "not judged"
    assert not hear(watch, GOOD, GOOD, GAPS, GOOD, GOOD)
    (change,) = hear(watch, GOOD)
    assert change.sentence == "The sensor is good again, after failure. The machine is monitored again."
    assert watch.guarded(heard(ALARM)).verdict.kind == "alarm"
    assert change.message("pump").payload["active"] is False


def test_another_gain_is_out_of_specification_and_worse_counts() -> None:
    watch = SensorWatch()
    (change,) = hear(watch, GAPS, LEVEL)  # as bad as both of them
    assert change.state.status == "out of specification"
    (change,) = hear(watch, GAPS, GAPS)
    assert change.state.status == "failure"
    (change,) = hear(watch, LEVEL, LEVEL, LEVEL)
    assert change.state.status == "out of specification"


def test_a_loud_machine_that_clips_is_judged_though_its_sensor_needs_maintenance() -> None:
    watch = SensorWatch()
    (change,) = hear(watch, *[CLIPPED] * 6)
    assert change.state.status == "maintenance required"
    assert watch.guarded(heard(ALARM)).verdict.kind == "alarm"
    (change,) = hear(watch, *[GOOD] * 6)
    assert change.state.status == "good"


def test_a_machine_that_is_off_has_a_good_sensor() -> None:
    watch = SensorWatch()
    (change,) = hear(watch, OFF, OFF, OFF)
    assert (change.state.status, change.state.off) == ("good", True)
    assert "The machine is off, or is not heard: the machine is off." in change.sentence
    (change,) = hear(watch, GOOD, GOOD)
    assert (change.state.off, change.sentence) == (False, "The machine is heard again.")


def test_a_source_without_sound_is_a_failure_until_sound_is_good() -> None:
    watch = SensorWatch()
    change = watch.source(SourceStatus("microphone", "waiting", error="microphone: was lost. Plug it in again."))
    assert change is not None
    assert change.state.reason == "gives no sound: microphone: was lost. Plug it in again"
    assert watch.source(SourceStatus("microphone", "waiting", error="again")) is None
    assert watch.source(SourceStatus("microphone", "running")) is None
    assert [change.state.status for change in hear(watch, GOOD, GOOD, GOOD)] == ["good"]


def test_the_last_status_is_the_latest_also_where_the_clock_is_set_back() -> None:
    watch = SensorWatch()
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    times = [noon, noon - timedelta(hours=1)]
    changes = [
        watch.source(SourceStatus("camera", "waiting", error="camera: was lost."), times[0]),
        watch.check(True, "new cable", times[1]),
        *hear(watch, GOOD),
    ]
    since = [change.state.since for change in changes if change is not None]
    assert since == [noon, noon + timedelta(microseconds=1)]


def test_failures_in_a_row_are_counted_where_people_look() -> None:
    """In the reason, now and then; nobody is called again."""
    watch, reasons = SensorWatch(), []
    for failures in range(1, 20):
        change = watch.source(SourceStatus("camera", "waiting", error="camera: was lost.", failures=failures))
        if change is not None:
            reasons.append(change.state.reason)
            assert bool(change.sentence) == (failures == 1)
    assert reasons[0] == "gives no sound: camera: was lost"
    assert reasons[1:] == [f"has failed {count} times in a row: camera: was lost" for count in (2, 4, 8, 16)]


def test_somebody_works_on_the_sensor() -> None:
    watch = SensorWatch()
    change = watch.check(True, "new cable")
    assert change is not None
    assert change.sentence == "Sensor: check function: new cable. The machine is not monitored."
    assert not hear(watch, *[GAPS] * 5, *[GOOD] * 5)
    assert watch.source(SourceStatus("microphone", "waiting")) is None
    assert watch.check(False) is None
    assert [change.state.status for change in hear(watch, GOOD, GOOD, GOOD)] == ["good"]


@given(st.lists(st.sampled_from(sorted(VERDICTS)), max_size=60))
def test_a_status_never_changes_without_windows_that_support_it(kinds: list[str]) -> None:
    """It gets worse by two windows in a row that are as bad, and is left by three (concerns: six) that are better."""
    watch = SensorWatch()
    rank = {"good": 0, "clipped": 1, "level": 2, "gaps": 4, "silent": 4}
    place = {"good": 0, "maintenance required": 1, "out of specification": 2, "failure": 4}
    ranks: list[int] = []
    for kind in kinds:
        before = watch.state
        change = watch.hear(heard(VERDICTS[kind]))
        ranks += [] if kind == "off" else [rank[kind]]
        if change is None or change.state.status == before.status:
            continue
        old, new = place[before.status], place[change.state.status]
        if new > old:
            assert min(ranks[-2:]) >= new or (new == 1 and min(ranks[-6:]) >= 1)
        else:
            assert max(ranks[-3:]) == new
    if kinds[-2:] in (["gaps", "silent"], ["silent", "silent"], ["gaps", "gaps"]):
        assert watch.state.status == "failure"


def test_a_state_of_an_earlier_run_is_taken_up() -> None:
    watch = SensorWatch(SensorState("failure", BEGAN, "has gaps"))
    assert not watch.trusted
    assert [change.state.status for change in hear(watch, GOOD, GOOD, GOOD)] == ["good"]

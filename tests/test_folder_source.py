"""A folder that something writes into: each file once, when it is finished, judged as `harken score` judges it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import harken
from harken.service.feed import Feed
from harken.service.judging import WindowJudge
from harken.service.listener import MachineListener
from harken.service.records import HeardWindow
from harken.service.sources.folder import FolderSource
from harken.service.sources.settling import is_closed
from harken.service.tap import Tap
from listening import RATE, detector_in, heard_of, humming, scores_of_files, stored, write


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> harken.Detector:
    return detector_in(tmp_path_factory.mktemp("normal"))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return humming(8.5)


@pytest.fixture(scope="module")
def scores(detector: harken.Detector, sound: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return scores_of_files(detector, sound, tmp_path_factory.mktemp("scored"))


def pieces(folder: Path, sound: np.ndarray, seconds: list[float]) -> None:
    """The sound cut into files of these lengths and a rest."""
    borders = [0, *(round(end * RATE) for end in np.cumsum(seconds)), len(sound)]
    for number, (start, stop) in enumerate(pairwise(borders)):
        write(folder / f"rec{number}.wav", sound[start:stop])


def test_files_are_judged_as_harken_score_judges_them(detector: harken.Detector, tmp_path: Path) -> None:
    """A second; several, by the worst of their segments; over a minute, per segment."""
    for name, seconds in (("1.wav", 1.0), ("2.wav", 3.5), ("10.wav", 61.25)):
        write(tmp_path / name, humming(seconds))
    heard = heard_of(FolderSource(tmp_path, ["pump"], watch=False), detector)
    files = [tmp_path / name for name in ("1.wav", "2.wav", "10.wav")]
    expected = list(detector.score_many(files, workers=0))
    assert [one.verdict.as_json() for one in heard] == [verdict.as_json() for verdict in expected]
    assert [one.window.number for one in heard] == list(range(len(expected)))
    assert [one.window.seconds for one in heard[:4]] == [1.0, 3.5, 1.0, 1.0]
    positions = [one.window.position for one in heard]
    assert positions[:4] == [0, RATE, RATE * 9 // 2, RATE * 11 // 2]
    # Its last segment ends with the recording.
    assert heard[-1].window.position - positions[2] == RATE * 241 // 4


@pytest.mark.parametrize("count", [0, 2, 30, 63])
def test_a_restart_goes_on_behind_what_is_stored(detector: harken.Detector, tmp_path: Path, count: int) -> None:
    for name, seconds in (("1.wav", 1.0), ("2.wav", 61.25), ("3.wav", 1.0)):
        write(tmp_path / name, humming(seconds))
    before = heard_of(FolderSource(tmp_path, ["pump"], watch=False), detector, count) if count else []
    state = stored(before)
    after = heard_of(FolderSource(tmp_path, ["pump"], resume=state, watch=False), detector, resume=state)
    assert [one.window.number for one in before + after] == list(range(1 + 62 + 1))
    names = [one.verdict.name for one in before + after]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("count", range(0, 9, 2))
def test_files_that_continue_each_other_are_one_sound(
    detector: harken.Detector, sound: np.ndarray, scores: list[float], tmp_path: Path, count: int
) -> None:
    """Windows go on across borders of files, also behind a restart at any window."""
    pieces(tmp_path, sound, [0.3, 2.45, 0.2, 0.1, 3.0])
    before = heard_of(FolderSource(tmp_path, ["pump"], continuous=True, watch=False), detector, count) if count else []
    state = stored(before)
    source = FolderSource(tmp_path, ["pump"], continuous=True, resume=state, watch=False)
    after = heard_of(source, detector, resume=state)
    assert [one.verdict.score for one in before + after] == scores
    assert [one.window.position for one in before + after] == [second * RATE for second in range(8)]
    assert [one.window.number for one in before + after] == list(range(8))


def test_times_in_names_show_where_sound_is_missing(detector: harken.Detector, tmp_path: Path) -> None:
    sound = humming(2.5)
    for name in ("20260301_120000Z", "20260301_120002Z", "20260301_130000Z"):
        write(tmp_path / f"{name}.wav", sound)
    heard = heard_of(FolderSource(tmp_path, ["pump"], continuous=True, watch=False), detector)
    # Two windows and a half, joined with the next file; the half second before the gap is no window.
    assert [str(one.window.start.time())[:8] for one in heard] == [
        "12:00:00", "12:00:01", "12:00:02", "12:00:02", "12:00:03", "13:00:00", "13:00:01",
    ]  # fmt: skip
    gap = heard[5].window.position - heard[4].window.position
    assert gap == pytest.approx(RATE * (3600 - 3.5 - 0.5), abs=RATE)


def test_a_file_is_taken_when_its_writer_has_closed_it(detector: harken.Detector, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    if is_closed(Path(__file__)) is None:
        pytest.skip("this system gives no leases")
    write(tmp_path / "whole.wav", humming(1.0))
    program = (
        "import sys, time\n"
        "data = open(sys.argv[1], 'rb').read(); out = open(sys.argv[2], 'wb', buffering=0)\n"
        "out.write(data[:20000]); print('half', flush=True); sys.stdin.readline(); out.write(data[20000:])\n"
        "out.close(); print('closed', flush=True); sys.stdin.readline()\n"
    )
    write(tmp_path / "in" / "0.wav", humming(1.0))
    folder = FolderSource(tmp_path / "in", ["pump"], settle_s=0.6)
    tap = Tap("pump", 1.0)
    feed = Feed(folder, [tap])
    feed.start()
    assert tap.get(10).origin == "0.wav"  # type: ignore[union-attr]
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "whole.wav"), str(tmp_path / "in" / "1.wav")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == "half\n"
    write(tmp_path / "in" / "2.wav", humming(1.0))
    assert tap.get(1.2) is None  # neither half of a file, nor those behind it
    writer.stdin.write("\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == "closed\n"
    first, second = tap.get(60), tap.get(60)
    writer.communicate("\n")
    assert feed.stop()
    assert (first.origin, first.frames) == ("1.wav", RATE)  # type: ignore[union-attr]
    assert second.origin == "2.wav"  # type: ignore[union-attr]


def test_what_cannot_be_read_is_reported_once_and_again_when_it_is_replaced(
    detector: harken.Detector, tmp_path: Path
) -> None:
    write(tmp_path / "1.wav", humming(1.0))
    write(tmp_path / "3.wav", humming(1.0))
    data = (tmp_path / "1.wav").read_bytes()
    (tmp_path / "2.wav").write_bytes(data[:1000])
    (tmp_path / "4.wav").write_bytes(b"not sound")
    (tmp_path / "5.txt").write_text("not even called so")
    before = heard_of(FolderSource(tmp_path, ["pump"], watch=False, settle_s=0.3), detector, 3)
    assert [one.window.origin for one in before[:1]] == ["1.wav"]
    state = stored(before)
    heard = before + heard_of(
        FolderSource(tmp_path, ["pump"], resume=state, watch=False, settle_s=0.3), detector, resume=state
    )
    errors = {one.window.origin: one.verdict.error.cause for one in heard if one.verdict.error is not None}
    assert set(errors) == {"2.wav", "4.wav"}
    assert "is cut off" in errors["2.wav"]
    assert len(heard) == 4
    state = stored(heard)
    assert not heard_of(
        FolderSource(tmp_path, ["pump"], resume=state, watch=False, settle_s=0.3), detector, resume=state
    )
    (tmp_path / "2.wav").write_bytes(data)
    source = FolderSource(tmp_path, ["pump"], resume=state, watch=False, settle_s=0.3)
    (again,) = heard_of(source, detector, resume=state)
    assert again.window.origin == "2.wav"
    assert again.window.number == 4
    assert again.verdict.score == before[0].verdict.score


def test_a_folder_that_vanishes_and_comes_back_is_taken_up(detector: harken.Detector, tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    for number in range(3):
        write(folder / f"{number}.wav", humming(1.0, 10 * number))
    tap = Tap("pump", 1.0, capacity=2)
    feed = Feed(FolderSource(folder, ["pump"], settle_s=0.3), [tap], soonest_s=0.05, latest_s=0.1)
    listener = MachineListener(feed, tap, WindowJudge("pump", detector))
    feed.start()
    heard: list[HeardWindow] = []

    def hear_until(done: object, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not done() and time.monotonic() < until:  # type: ignore[operator]
            heard.extend(listener.hear(0.05))

    hear_until(lambda: heard)
    folder.rename(tmp_path / "away")
    hear_until(lambda: feed.status().state == "waiting")
    assert "the folder cannot be read" in feed.status().error
    write(tmp_path / "away" / "3.wav", humming(1.0, 30))
    (tmp_path / "away").rename(folder)
    hear_until(lambda: len(heard) >= 4)
    time.sleep(0.5)
    hear_until(lambda: False, 0.3)
    assert feed.stop()
    assert sorted(one.window.origin for one in heard) == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert all(one.verdict.score is not None for one in heard)
    assert [one.window.number for one in heard] == [0, 1, 2, 3]


def test_files_that_are_deleted_are_forgotten_but_not_those_of_an_empty_mount(
    detector: harken.Detector, tmp_path: Path
) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.wav", humming(1.0, 10 * number))
    state = stored(heard_of(FolderSource(tmp_path, ["pump"], watch=False, settle_s=0.3), detector))
    assert {key for key in state if "/" in key} == {"pump/0.wav", "pump/1.wav", "pump/2.wav"}
    (tmp_path / "0.wav").unlink()
    write(tmp_path / "3.wav", humming(1.0, 70))
    source = FolderSource(tmp_path, ["pump"], watch=False, settle_s=0.3, resume=state)
    (heard,) = heard_of(source, detector, resume=state)
    assert heard.window.resume["pump/0.wav"] == {}
    empty = tmp_path / "empty"
    empty.mkdir()
    source = FolderSource(empty, ["pump"], watch=False, resume=state)
    assert not list(source.listen(threading.Event()))
    assert source.forgotten() == {}


def test_files_come_in_the_order_of_names_or_of_times(tmp_path: Path) -> None:
    for name, age in (("a10.wav", 7200), ("a9.wav", 7300), ("b.wav", 9000)):
        write(tmp_path / name, humming(0.2))
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))

    def order(**options: object) -> list[str]:
        source = FolderSource(tmp_path, ["pump"], watch=False, **options)  # type: ignore[arg-type]
        return [piece.origin for piece in source.listen(threading.Event()) if piece is not None]

    assert order() == ["a9.wav", "a10.wav", "b.wav"]
    assert order(order="time") == ["b.wav", "a9.wav", "a10.wav"]


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 1), (1, 4), (2, 2)])
def test_machines_share_a_folder_by_channels_and_each_goes_on_where_it_stopped(
    detector: harken.Detector, tmp_path: Path, continuous: bool, first: int, second: int
) -> None:
    """Of a recorder with two inputs; the machines are not equally far when they are killed."""
    left, right = humming(5.0), humming(5.0, 200)
    for number in range(5):
        both = np.stack([sound[number * RATE : (number + 1) * RATE] for sound in (left, right)], axis=1)
        write(tmp_path / f"{number}.wav", both)
    counts = {"left": first, "right": second}

    def hear(state: dict[str, object], most: dict[str, int]) -> dict[str, list[HeardWindow]]:
        taps = [
            Tap(machine, 1.0, channels=[number], resume=state)  # type: ignore[arg-type]
            for number, machine in enumerate(counts)
        ]
        source = FolderSource(tmp_path, [*counts], resume=state, continuous=continuous, watch=False)  # type: ignore[arg-type]
        feed = Feed(source, taps)
        judges = [
            WindowJudge(machine, detector, resume=state, channels=[number])  # type: ignore[arg-type]
            for number, machine in enumerate(counts)
        ]
        listeners = [MachineListener(feed, tap, judge) for tap, judge in zip(taps, judges, strict=True)]
        feed.start()
        heard: dict[str, list[HeardWindow]] = {machine: [] for machine in counts}
        until = time.monotonic() + 60
        while time.monotonic() < until and not all(
            listener.finished or len(heard[machine]) >= most[machine]
            for machine, listener in zip(counts, listeners, strict=True)
        ):
            for machine, listener in zip(counts, listeners, strict=True):
                if len(heard[machine]) < most[machine]:
                    heard[machine] += listener.hear(0.05)
        feed.stop()
        return heard

    before = hear({}, counts)
    state = stored([one for windows in before.values() for one in windows])
    after = hear(dict(state), {"left": 99, "right": 99})
    for machine, sound in (("left", left), ("right", right)):
        windows = before[machine] + after[machine]
        assert [one.window.number for one in windows] == list(range(5))
        assert [one.window.position for one in windows] == [number * RATE for number in range(5)]
        expected = [detector.score(sound[number * RATE : (number + 1) * RATE], RATE).score for number in range(5)]
        assert [one.verdict.score for one in windows] == expected
        assert all(one.window.samples_CS.shape == (1, RATE) for one in windows)

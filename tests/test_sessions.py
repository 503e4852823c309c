"""Sessions of normal recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harken.data.chronology import chronology
from harken.detection import create_detector
from harken.monitor.sessions import check_last_session, session_notes, session_numbers


def recorded(days: int, clips: int) -> list[Path]:
    """Recordings of some minutes on each of some days."""
    return [Path(f"2024-05-{day + 1:02d}_13-{clip:02d}-00.wav") for day in range(days) for clip in range(clips)]


def test_pauses_divide_sessions() -> None:
    paths = recorded(3, 20)
    numbers = session_numbers(chronology(paths), paths)
    assert np.bincount(numbers).tolist() == [20, 20, 20]
    snapshots = [Path(f"2024-05-{day + 1:02d}_12-00-00.wav") for day in range(30)]
    assert session_numbers(chronology(snapshots), snapshots).max() == 0


def test_folders_are_sessions_where_no_times_are_known() -> None:
    paths = [Path(f"{day}/{clip}.wav") for day in ("monday", "tuesday") for clip in range(12)]
    assert np.bincount(session_numbers(chronology(paths), paths)).tolist() == [12, 12]


@pytest.mark.parametrize(("offset", "different"), [(0.0, False), (4.0, True)])
def test_the_last_session_is_judged_by_the_others(offset: float, different: bool) -> None:
    paths = recorded(4, 20)
    when = chronology(paths)
    numbers = session_numbers(when, paths)
    rows = np.random.default_rng(0).normal(size=(80, 6))
    rows[60:] += offset
    check = check_last_session(create_detector("local_density"), rows, ["state 0"] * 80, None, numbers)
    assert check is not None
    assert (check.sessions, check.clips, check.different) == (4, 20, different)
    (note,) = session_notes(check, when, numbers)
    assert ("Record on more days" in note) == different


def test_a_single_session_is_said() -> None:
    paths = recorded(1, 40)
    when = chronology(paths)
    numbers = session_numbers(when, paths)
    rows = np.random.default_rng(0).normal(size=(40, 6))
    assert check_last_session(create_detector("knn"), rows, ["a"] * 40, None, numbers) is None
    (note,) = session_notes(None, when, numbers)
    assert note.startswith("all were recorded in one go of 39 min")


def test_recordings_without_times_in_one_folder_may_be_a_single_session() -> None:
    paths = [Path(f"normal/{clip:03d}.wav") for clip in range(40)]
    when = chronology(paths)
    numbers = session_numbers(when, paths)
    (note,) = session_notes(None, when, numbers)
    assert note.startswith("when they were recorded is not known: if all in one go, other days may be other sounds")
    folders = [Path(f"{day}/{clip}.wav") for day in ("monday", "tuesday") for clip in range(12)]
    assert session_notes(None, chronology(folders), session_numbers(chronology(folders), folders)) == []

"""Order of recordings in time, from names and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harken.core.errors import HarkenError
from harken.data.chronology import chronology
from harken.data.clips import natural_key


def paths(*names: str) -> list[Path]:
    return sorted((Path("/rec") / name for name in names), key=natural_key)


def written_at_once(path: Path) -> float:
    return 1e9 + hash(path) % 100 / 1e4


@given(
    st.permutations(range(30)), st.sampled_from(["x_{:04d}", "{}", "clip{}_1400rpm", "a{:03d}_b", "fan_2_{:05d}_v3"])
)
def test_running_numbers_of_any_place(numbers: list[int], form: str) -> None:
    files = [Path("/rec") / f"{form.format(number)}.wav" for number in numbers]
    order = chronology(files, modified=written_at_once)
    assert order.source == "running numbers in the names"
    assert [numbers[row] for row in order.order_N] == sorted(numbers)
    assert len(set(order.sequences_N)) == 1


def test_times_in_names_come_first() -> None:
    files = paths("9_2024-05-01_13-05-07.wav", "1_2024-05-02_13-05-07.wav", "5_2024-05-01_23-05-07.wav")
    order = chronology(files, modified=written_at_once)
    assert order.source == "times in the names"
    assert [files[row].name[0] for row in order.order_N] == ["9", "5", "1"]
    assert np.ptp(order.seconds_N) == 86_400


def test_a_name_without_a_time_belongs_to_no_sequence() -> None:
    files = paths(*(f"2024-05-01_13-{minute:02d}-07.wav" for minute in range(20)), "test.wav")
    order = chronology(files, modified=written_at_once)
    assert order.source == "times in the names"
    assert sorted(np.unique(order.sequences_N, return_counts=True)[1]) == [1, 20]


def test_speeds_are_no_running_numbers() -> None:
    """Numbers restart at each speed: nothing is known of the order of the speeds."""
    files = paths(*(f"fan_{speed}_{take:02d}.wav" for speed in (1400, 1450, 1600) for take in range(15)))
    order = chronology(files, modified=written_at_once)
    assert len(set(order.sequences_N)) == len(set(order.series_N)) == 3
    assert not chronology(
        paths(*(f"fan_{speed}.wav" for speed in range(1400, 2000, 50))), modified=written_at_once
    ).ordered
    few = paths(*(f"fan_{speed}_{take}.wav" for speed in range(1400, 2000, 50) for take in range(3)))
    assert not chronology(few, modified=written_at_once).ordered


def test_each_folder_has_its_own_running_numbers() -> None:
    files = paths(*(f"day{day}/{take}.wav" for day in range(3) for take in range(8)))
    order = chronology(files, modified=written_at_once)
    assert len(set(order.sequences_N)) == 3
    assert set(order.series_N) == {""}


def test_dcase_names_have_a_running_number_in_each_domain() -> None:
    names = [f"section_00_source_train_normal_{take:04d}_vel_6.wav" for take in range(40)]
    names += [f"section_00_target_train_normal_{take:04d}_vel_7.wav" for take in range(10)]
    assert len(set(chronology(paths(*names), modified=written_at_once).sequences_N)) == 2
    speeds = [f"section_01_source_normal_{speed}_fault_healthy.wav" for speed in range(1400, 1700, 50)]
    assert not chronology(paths(*speeds), modified=written_at_once).ordered


@given(st.permutations(range(20)))
def test_times_of_files_where_names_have_no_order(minutes: list[int]) -> None:
    files = [Path("/rec") / f"{chr(97 + index)}.wav" for index in range(20)]
    times = {path: 1e9 + 60.0 * minute for path, minute in zip(files, minutes, strict=True)}
    order = chronology(files, modified=times.__getitem__)
    assert order.source == "times of the files"
    assert [minutes[row] for row in order.order_N] == list(range(20))


def test_times_of_copies_are_not_those_of_recordings() -> None:
    files = paths("a.wav", "b.wav", "c.wav")
    assert not chronology(files, modified=written_at_once).ordered
    with pytest.raises(HarkenError, match="written at once") as raised:
        chronology(files, "time", modified=written_at_once)
    assert "--order name" in raised.value.next_step
    slow_copy = dict(zip(files, (1e9, 1e9 + 2, 1e9 + 4), strict=True))
    assert chronology(files, modified=slow_copy.__getitem__).ordered
    assert not chronology(files, clip_seconds=10, modified=slow_copy.__getitem__).ordered


def test_orders_that_are_asked_for() -> None:
    files = paths("2024-05-02_13-05-07_0.wav", "2024-05-01_13-05-07_1.wav")
    assert chronology(files, "name").order_N.tolist() == [0, 1]
    assert chronology(files, "time").order_N.tolist() == [0, 1]
    assert chronology(files[::-1], "name").order_N.tolist() == [0, 1]
    assert chronology(files[::-1], "time").order_N.tolist() == [1, 0]
    assert not chronology(files, "none").ordered

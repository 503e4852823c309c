"""Times in file names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harken.data.name_times import time_in_name

SECONDS = datetime(2024, 5, 1, 13, 5, 7, tzinfo=UTC).timestamp()
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2036, 7, 1)).map(lambda time: time.replace(microsecond=0))
TO_THE_SECOND = [
    "%Y-%m-%d_%H-%M-%S",
    "%Y-%m-%d %H.%M.%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y%m%dT%H%M%S",
    "%Y%m%d_%H%M%S",
    "%Y%m%d-%H%M%S",
    "%Y%m%d%H%M%S",
    "%Y_%m_%d_%H_%M_%S",
    "%d.%m.%Y_%H-%M-%S",
    "%y%m%d_%H%M%S",
    "%Y-%m-%d/%H%M%S",
    "%Y-%m-%d/pump_%H-%M-%S",
    "%Y-%m-%d at %H.%M.%S",
    "%Y-%m-%d_%Hh%Mm%Ss",
]


@given(
    TIMES, st.sampled_from(TO_THE_SECOND), st.sampled_from(["{}", "pump_{}", "{}_normal", "rec{}", "p-{}_x 1400rpm"])
)
def test_every_form_gives_its_time(time: datetime, form: str, around: str) -> None:
    found = time_in_name(around.format(time.strftime(form)))
    assert found is not None
    assert found[0] == time.replace(tzinfo=UTC).timestamp()


@given(TIMES, st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]), st.sampled_from(["{}", "pump_{}", "{}_x"]))
def test_seconds_since_1970_in_any_unit(time: datetime, unit: int, around: str) -> None:
    seconds = max(int(time.replace(tzinfo=UTC).timestamp()), 1_000_000_000)
    found = time_in_name(around.format(seconds * unit))
    assert found is not None
    assert found[0] == seconds


@given(st.lists(TIMES, min_size=2, max_size=2, unique=True), st.sampled_from(TO_THE_SECOND))
def test_later_recordings_have_later_times(times: list[datetime], form: str) -> None:
    early, late = (time_in_name(f"{time.strftime(form)}_0001") for time in sorted(times))
    assert early is not None
    assert late is not None
    assert early[0] < late[0]


@pytest.mark.parametrize(
    ("name", "seconds", "rest"),
    [
        ("20240501_130507.250_a", SECONDS + 0.25, "_a"),
        ("20240501_130507250", SECONDS + 0.25, ""),
        ("2024-05-01T13:05:07Z", SECONDS, ""),
        ("2024-05-01T15:05:07+0200", SECONDS, ""),
        ("2024-05-01 13-05", SECONDS - 7, ""),
        ("pump_2024-05-01", SECONDS - 47_107, "pump_ "),
        ("pump_20240501_130507_17", SECONDS, "pump__17"),
        ("1714568707.5", SECONDS + 0.5, ""),
    ],
)
def test_parts_of_seconds_zones_and_what_is_left(name: str, seconds: float, rest: str) -> None:
    assert time_in_name(name) == (seconds, rest)


@given(st.integers(0, 99_999_999), st.sampled_from(["pump_{:08d}", "normal_id_00_{:08d}", "{:04d}", "{}rpm"]))
def test_running_numbers_are_no_times(number: int, form: str) -> None:
    name = form.format(number)
    digits = f"{number:08d}"
    is_date = digits[:2] in ("19", "20") and 1 <= int(digits[4:6]) <= 12 and 1 <= int(digits[6:]) <= 31
    assert time_in_name(name) is None or is_date


@pytest.mark.parametrize(
    "name", ["pump", "2024-13-01", "0000000012", "section_00_source_train_normal_0990_spd_28V", ""]
)
def test_names_without_a_time(name: str) -> None:
    assert time_in_name(name) is None

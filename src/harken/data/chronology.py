"""Order in which recordings were made: from their names, else from the times of their files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import gcd
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.data.clips import names_below_common, natural_key
from harken.data.name_times import time_in_name
from harken.data.names import parse_name, without_suffix

OrderChoice = Literal["auto", "name", "time", "none"]

#: share of recordings whose names must have a time
_TIMED = 0.9
#: fewest recordings of a series with its own running numbers
_SERIES = 10
#: running numbers are at least this dense among all numbers of their range
_DENSITY = 1 / 50
_LONGEST_SECONDS = 20 * 365 * 86_400.0


@dataclass(frozen=True, eq=False)
class Chronology:
    """What is known of when recordings were made.

    source: what it was taken from, in words. ordered: whether there is any order. order_N: rows by time. sequences_N:
    label of each recording's sequence; between sequences nothing is known of time. series_N: label of names that differ
    in more than the running number, such as those of loads. seconds_N: since 1970, nan where unknown; None without
    times. recordings_N: label of the recording that each one is a segment of; None where none was cut.
    """

    source: str
    ordered: bool
    order_N: NDArray[np.int64]
    sequences_N: NDArray[np.str_]
    series_N: NDArray[np.str_]
    seconds_N: NDArray[np.float64] | None = None
    recordings_N: NDArray[np.str_] | None = None

    def of(self, rows_N: Sequence[int] | NDArray[np.int64]) -> Chronology:
        """That of some of the recordings, which are given in order of time."""
        rows = np.asarray(rows_N, dtype=np.int64)
        seconds = None if self.seconds_N is None else self.seconds_N[rows]
        recordings = None if self.recordings_N is None else self.recordings_N[rows]
        return replace(
            self,
            order_N=np.arange(len(rows)),
            sequences_N=self.sequences_N[rows],
            series_N=self.series_N[rows],
            seconds_N=seconds,
            recordings_N=recordings,
        )


def chronology(
    paths: Sequence[Path],
    choice: OrderChoice = "auto",
    *,
    clip_seconds: float = 1.0,
    modified: Callable[[Path], float] | None = None,
) -> Chronology:
    """Order of recordings, given in natural order of their names.

    auto: times in names, else running numbers, else times of the files where they can be those of recordings.
    name: the order given. time: times in names, else those of the files. none: in no order.
    clip_seconds: how long a recording lasts. modified: modification time of a file in seconds (default: that of the
    file system).
    Raises HarkenError where `time` is asked for and all files were written at once.
    """
    if choice == "none":
        return _unordered(len(paths))
    if choice == "name":
        return _sorted("the order of names", np.arange(len(paths), dtype=np.float64), timed=False)
    names = names_below_common(paths)
    times = _named_times(names)
    if times is not None:
        return times
    numbered = _running_numbers(names) if choice == "auto" else None
    if numbered is not None:
        return numbered
    written_N = np.array([(modified or _modified)(path) for path in paths])
    if plausible(written_N, clip_seconds / 2):
        return _sorted("times of the files", written_N, timed=True)
    if choice == "auto":
        return _unordered(len(paths))
    raise HarkenError(
        f"the names of these {len(paths)} recordings have no times, and the files were written at once, as copies are",
        next_step="Put times into the names (pump_20240501_130507.wav), or choose --order name",
    )


def plausible(written_N: NDArray[np.float64], least_step: float = 1.0) -> bool:
    """Whether file times (in seconds) can be those of recordings, which follow each other by at least `least_step`.

    A copy writes many files per second; recordings take their time.
    """
    if len(written_N) < 2:
        return False
    steps = np.diff(np.sort(written_N))
    # A few may be shorter, such as those of files that were edited together later.
    return float((steps >= least_step).mean()) >= _TIMED and bool(steps.sum() < _LONGEST_SECONDS)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("nan")


def _unordered(count: int) -> Chronology:
    label = np.zeros(count).astype(str)
    return Chronology("nothing", False, np.arange(count), label, label)


def _sorted(source: str, values_N: NDArray[np.float64], *, timed: bool) -> Chronology:
    order = np.argsort(values_N, kind="stable")
    label = np.zeros(len(values_N)).astype(str)
    # Those without a time belong to no sequence.
    label = np.where(np.isnan(values_N), np.arange(1, len(values_N) + 1).astype(str), label)
    return Chronology(source, True, order, label, np.zeros(len(values_N)).astype(str), values_N if timed else None)


def _named_times(names: Sequence[str]) -> Chronology | None:
    """By the times in names; None where too few have one, or all the same."""
    times = [time_in_name(without_suffix(name)) for name in names]
    seconds_N = np.array([float("nan") if time is None else time[0] for time in times])
    if (
        len(names) < 2
        or np.isfinite(seconds_N).mean() < _TIMED
        or len(np.unique(seconds_N[np.isfinite(seconds_N)])) < 2
    ):
        return None
    return _sorted("times in the names", seconds_N, timed=True)


# ---- running numbers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Numbered:
    """A name with the number that may be the running one. series: the rest of the name without its folder."""

    folder: str
    series: str
    number: int


def _running_numbers(names: Sequence[str]) -> Chronology | None:
    """By numbers that count recordings: of all in a folder, or of series of at least `_SERIES`; None without them."""
    best: tuple[int, Chronology] | None = None
    for candidate in _candidates(names):
        for per_folder in (True, False):
            keys = [(each.folder, "" if per_folder else each.series) for each in candidate]
            groups: dict[tuple[str, str], list[int]] = defaultdict(list)
            for key, each in zip(keys, candidate, strict=True):
                groups[key].append(each.number)
            if not all(len(set(numbers)) == len(numbers) for numbers in groups.values()) or not _counts(
                groups.values()
            ):
                continue
            if len(groups) > 1 and len(names) < (2 if per_folder else _SERIES) * len(groups):
                continue
            if best is None or len(groups) < best[0]:
                best = len(groups), _by_number(candidate, keys)
    return None if best is None else best[1]


def _by_number(numbered: Sequence[_Numbered], keys: Sequence[tuple[str, str]]) -> Chronology:
    order = sorted(
        range(len(keys)), key=lambda row: (natural_key(Path(keys[row][0])), keys[row][1], numbered[row].number)
    )
    sequences = np.array(["\0".join(key) for key in keys])
    series = np.array([key[1] for key in keys])
    return Chronology("running numbers in the names", True, np.array(order, dtype=np.int64), sequences, series)


def _counts(groups: Iterable[Sequence[int]]) -> bool:
    """Whether numbers of series are those of a counter: dense, and not only multiples of a step such as 50 rpm."""
    step = spread = members = 0
    for numbers in groups:
        ordered = sorted(numbers)
        step = gcd(step, *(later - earlier for earlier, later in pairwise(ordered)))
        spread += ordered[-1] - ordered[0] + 1
        members += len(ordered)
    return step in (1, 2) and members >= _DENSITY * spread


def _candidates(names: Sequence[str]) -> list[list[_Numbered]]:
    """Numbers that stand at the same place of all names: the running number of DCASE names, else any of them."""
    parsed = [parse_name(without_suffix(Path(name).name)) for name in names]
    if all(parsed):
        return [
            [
                _Numbered(str(Path(name).parent), f"{each.section} {each.domain} {each.split}", int(each.number))
                for name, each in zip(names, parsed, strict=True)
                if each is not None
            ]
        ]
    split = [_numbers(name) for name in names]
    shortest = min(len(numbers) for numbers in split)
    places = [*range(shortest), *range(-shortest, 0)]
    return [[numbers[place] for numbers in split] for place in places]


def _numbers(name: str) -> list[_Numbered]:
    """Each number in a name that has no unit (28V has one)."""
    path = Path(name)
    stem = without_suffix(path.name)
    return [
        _Numbered(str(path.parent), f"{stem[: match.start()]}#{stem[match.end() :]}", int(match[0]))
        for match in re.finditer(r"\d+(?![\d.,]*[A-Za-z%])", stem)
    ]

"""The published clips of a year, for plans without data: one row for clips that differ in their names only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from harken.data import catalog
from harken.data.clips import Clip

#: training clips per section and domain where the catalogue has no numbers: about 1000 of ToyADMOS and 900 of MIMII
#: in 2020, 1000 and 3 in 2021
_TRAIN: dict[int, dict[str, int]] = {2020: {"source": 950}, 2021: {"source": 1000, "target": 3}}
#: test clips per section where the catalogue has no numbers
_TEST = {"normal": 200, "anomaly": 200}
#: conditions in the names of a machine's clips, where they were counted; hidden ones have one class
_CONDITIONS: dict[int, dict[str, int]] = {
    2025: {
        "ToyCar": 26, "fan": 5, "gearbox": 9, "valve": 5, "BandSealer": 6, "HomeCamera": 12, "ToyRCCar": 5,
        "CoffeeGrinder": 97,
    },
    2026: {"ToyCarEmu": 22, "gearboxEmu": 9, "fan": 3, "ToyDrone": 10, "Sander": 15, "BlowerDustCollector": 6},
}  # fmt: skip
#: folder of files that do not exist
_NOWHERE = Path("expected")


@dataclass(frozen=True)
class ExpectedClip(Clip):
    """`count` clips that differ in their names only."""

    count: int = 1


def alike(clip: Clip, count: int) -> ExpectedClip:
    """`count` clips like this one."""
    return ExpectedClip(**{**vars(clip), "count": count})


def number_of(clips: Iterable[Clip]) -> int:
    """Number of clips of these rows."""
    return sum(clip.count if isinstance(clip, ExpectedClip) else 1 for clip in clips)


def expected_clips(years: Iterable[int]) -> list[Clip]:
    """Rows for every clip that these years were published with; there are no such files."""
    return list(_expected_clips(tuple(years)))


@lru_cache(maxsize=4)
def _expected_clips(years: tuple[int, ...]) -> tuple[Clip, ...]:
    rows: list[Clip] = []
    for number in years:
        year = catalog.year(number)
        conditions = _CONDITIONS.get(number, {})

        for entry in year.machines:
            counted = not entry.hidden_attributes and entry.name in conditions
            names = cycle(range(conditions[entry.name] if counted else 1))
            for section in entry.sections:
                for domain, count in (year.train or _TRAIN.get(number, {})).items():
                    for condition, alike in Counter(islice(names, count)).items():
                        attributes = {"condition": str(condition)} if counted else {}
                        _add(rows, number, alike, entry.name, section, split="train", domain=domain, condition="normal",
                            attributes=attributes)  # fmt: skip
                for label, count in entry.test.get(section, _TEST).items():
                    _add(rows, number, count, entry.name, section, split="test", condition=label)
            _add(
                rows, number, year.supplemental or 0, entry.name, entry.sections[0], split="supplemental",
                condition="normal", kind="noise",
            )  # fmt: skip
    return tuple(rows)


def _add(rows: list[Clip], year: int, count: int, machine: str, section: str, **more: Any) -> None:
    if count:
        name = f"expected {year} {len(rows)}"
        rows.append(
            ExpectedClip(name, _NOWHERE, f"dcase{year}", year, machine=machine, section=section, count=count, **more)
        )


def expected_seconds(year: int | None, machine: str) -> float:
    """Length of a machine's clips: the middle of the published range of the year; 10 s without one."""
    if year is None or year not in catalog.years():
        return 10.0
    published = catalog.year(year)
    entry = next((entry for entry in published.machines if entry.name == machine and entry.seconds is not None), None)
    shortest, longest = (entry.seconds if entry is not None else None) or published.seconds
    return (shortest + longest) / 2


def classes_are_whole(years: Iterable[int]) -> bool:
    """Whether the conditions of all machines of these years were counted; else there are more classes."""
    return all(number in _CONDITIONS for number in years)

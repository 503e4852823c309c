"""The clips that a year has by what was published of it, for plans without data."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

from harken.data import catalog
from harken.data.clips import Clip

#: training clips a section and domain where the catalogue does not know them: about 1000 of ToyADMOS and 900 of MIMII
#: in 2020, 1000 and 3 in 2021
_TRAIN: dict[int, dict[str, int]] = {2020: {"source": 950}, 2021: {"source": 1000, "target": 3}}
#: test clips of a section where the catalogue does not know them
_TEST = {"normal": 200, "anomaly": 200}
#: conditions that a machine's names tell, where they were counted; hidden ones have one class
_CONDITIONS: dict[int, dict[str, int]] = {
    2025: {
        "ToyCar": 26, "fan": 5, "gearbox": 9, "valve": 5, "BandSealer": 6, "HomeCamera": 12, "ToyRCCar": 5,
        "CoffeeGrinder": 97,
    },
    2026: {"ToyCarEmu": 22, "gearboxEmu": 9, "fan": 3, "ToyDrone": 10, "Sander": 15, "BlowerDustCollector": 6},
}  # fmt: skip
#: one path for all: making them takes longer than all else
_NOWHERE = Path("nominal")


def nominal_clips(years: Iterable[int]) -> list[Clip]:
    """Rows for every clip that these years have nominally; there are no such files."""
    return list(_nominal_clips(tuple(years)))


@lru_cache(maxsize=4)
def _nominal_clips(years: tuple[int, ...]) -> tuple[Clip, ...]:
    found: list[Clip] = []
    for number in years:
        year = catalog.year(number)
        conditions = _CONDITIONS.get(number, {})
        for entry in year.machines:
            names = cycle(range(1 if entry.hidden_attributes else conditions.get(entry.name, 1)))
            told = not entry.hidden_attributes and entry.name in conditions
            for section in entry.sections:
                base: dict[str, Any] = {"machine": entry.name, "section": section}
                for domain, count in (year.train or _TRAIN.get(number, {})).items():
                    for _ in range(count):
                        attributes = {"condition": str(next(names))} if told else {}
                        found.append(_clip(number, found, base, split="train", domain=domain, condition="normal",
                                           attributes=attributes))  # fmt: skip
                for condition, count in entry.test.get(section, _TEST).items():
                    for _ in range(count):
                        found.append(_clip(number, found, base, split="test", condition=condition))
            for _ in range(year.supplemental or 0):
                base = {"machine": entry.name, "section": entry.sections[0]}
                found.append(_clip(number, found, base, split="supplemental", condition="normal", kind="noise"))
    return tuple(found)


def nominal_seconds(year: int | None, machine: str) -> float:
    """Length of a machine's clips: the middle of what was published of the year; 10 s where nothing was."""
    if year is None or year not in catalog.years():
        return 10.0
    known = catalog.year(year)
    entry = next((entry for entry in known.machines if entry.name == machine and entry.seconds is not None), None)
    shortest, longest = (entry.seconds if entry is not None else None) or known.seconds
    return (shortest + longest) / 2


def classes_are_whole(years: Iterable[int]) -> bool:
    """Whether the conditions of all machines of these years were counted; else there are more classes."""
    return all(number in _CONDITIONS for number in years)


def _clip(year: int, found: list[Clip], base: dict[str, Any], **more: Any) -> Clip:
    name = f"nominal {year} {len(found)}"
    return Clip(clip_id=name, path=_NOWHERE, corpus=f"dcase{year}", year=year, **base, **more)

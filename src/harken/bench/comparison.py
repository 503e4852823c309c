"""A comparison of runs: systems, their differences, and what the numbers are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harken.bench.run_names import read_names

Bounds = tuple[float, float]


@dataclass(frozen=True)
class ScoreDifference:
    """Of a system to another: official score of the first minus that of the second, on the same clips.

    against: run and system of the second. clips: interval over clips (other recordings of these machines). machines:
    over machines and clips (other machines too); None with one machine. share: of the resamples over machines and
    clips, over clips with one machine, in which the first is better. by_machine: machine -> difference of its own
    official score and its interval over clips. marks: of both.
    """

    against: tuple[str, str]
    value: float
    clips: Bounds
    machines: Bounds | None
    share: float
    by_machine: Mapping[str, tuple[float, Bounds]]
    marks: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """As in `harken compare --json`."""
        return {
            "run": self.against[0],
            "system": self.against[1],
            "difference": self.value,
            "interval_over_clips": list(self.clips),
            "interval_over_machines_and_clips": None if self.machines is None else list(self.machines),
            "share_of_resamples_above": self.share,
            "machines": {
                machine: {"difference": value, "interval_over_clips": list(bounds)}
                for machine, (value, bounds) in self.by_machine.items()
            },
            "marks": dict(self.marks),
        }


@dataclass(frozen=True)
class ComparedSystem:
    """A system of a run. score: official, mean over its seeds; None where labels are unknown or a class is missing.
    spread: their standard deviation. machines: official score of each machine alone. marks: of all these numbers."""

    run: str
    system: str
    seeds: int
    score: float | None
    spread: float
    machines: Mapping[str, float]
    marks: Mapping[str, str]
    difference: ScoreDifference | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Run and system."""
        return self.run, self.system

    def as_json(self) -> dict[str, Any]:
        """As in `harken compare --json`."""
        return {
            "run": self.run,
            "system": self.system,
            "official_score": self.score,
            "official_score_std": self.spread,
            "seeds": self.seeds,
            "machines": dict(self.machines),
            "marks": dict(self.marks),
            "against": None if self.difference is None else self.difference.as_json(),
        }


@dataclass(frozen=True)
class ComparedSet:
    """Systems on one set of data. clips: number of test clips, which all have scored. machines: with scores."""

    name: str
    clips: int
    machines: tuple[str, ...]
    systems: tuple[ComparedSystem, ...]


@dataclass(frozen=True)
class Comparison:
    """What `harken.compare` gives.

    runs: their names. parameters: those that differ, key -> value in each run. draws: of the bootstrap, with this seed;
    level: of its intervals. notes: what was left out, and what the numbers are worth.
    """

    runs: tuple[str, ...]
    folders: tuple[Path, ...]
    parameters: Mapping[str, tuple[Any, ...]]
    sets: tuple[ComparedSet, ...]
    notes: tuple[str, ...]
    draws: int
    level: float
    seed: int

    def as_json(self) -> dict[str, Any]:
        """As `harken compare --json` prints it."""
        return {
            "runs": [
                {"name": name, "folder": str(folder), "tags": list(read_names(folder).tags)}
                for name, folder in zip(self.runs, self.folders, strict=True)
            ],
            "parameters": {key: dict(zip(self.runs, values, strict=True)) for key, values in self.parameters.items()},
            "sets": {
                each.name: {
                    "clips": each.clips,
                    "machines": list(each.machines),
                    "systems": [system.as_json() for system in each.systems],
                }
                for each in self.sets
            },
            "bootstrap": {"draws": self.draws, "level": self.level, "seed": self.seed},
            "notes": list(self.notes),
        }

"""One scorer of an ensemble: its scores, section by section, and those of its training clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.data.truth import Section
from harken.evaluation.score_files import System

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Train:
    """Held-out scores of the training clips of a section. names: of the clips, None where they are not known."""

    scores_T: Float64
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Scored:
    """One section. clips: names without ending, sorted; decisions_N: 0 and 1, None where there are none."""

    clips: tuple[str, ...]
    scores_N: Float64
    train: Train | None = None
    decisions_N: Float64 | None = None


@dataclass(frozen=True)
class Source:
    """Where a member was read from: a path, the system in it and the set, where there are several."""

    path: Path
    system: str | None = None
    set: str | None = None
    bundle: bool = False


@dataclass(frozen=True)
class Member:
    """One scorer. by_domain, by_id: how its files are spelled, see `System`."""

    name: str
    sections: Mapping[Section, Scored]
    by_domain: bool = False
    by_id: bool = False
    source: Source | None = None

    def as_system(self) -> System:
        """As the evaluation reads it."""
        system = System(self.name, by_domain=self.by_domain, by_id=self.by_id)
        for key, part in self.sections.items():
            system.scores[key] = dict(zip(part.clips, part.scores_N.tolist(), strict=True))
            if part.decisions_N is not None:
                system.decisions[key] = dict(zip(part.clips, part.decisions_N.tolist(), strict=True))
        return system


def member_of(system: System, train: Mapping[Section, Train], source: Source) -> Member:
    """A member from a system's scores."""
    sections = {}
    for key, rows in system.scores.items():
        clips = tuple(sorted(rows))
        made = system.decisions.get(key)
        decisions = None
        if made is not None and made.keys() == rows.keys():
            decisions = np.array([made[clip] for clip in clips])
        sections[key] = Scored(clips, np.array([rows[clip] for clip in clips]), train.get(key), decisions)
    return Member(system.name, sections, system.by_domain, system.by_id, source)

"""Results of a run: scores and official numbers of every system, and what was left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harken.bench.ensembles import Mix
from harken.bench.graph import Unit
from harken.bench.recipe import Recipe
from harken.bench.stages.tables import Quarantined
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.data.index import DataFinding
from harken.evaluation.evaluate import Result
from harken.evaluation.scores import TUNED, Scores

SCHEMA = 1
#: with fewer test clips a machine's AUC has a standard error of more than 0.08
FEW_CLIPS = 50


@dataclass(frozen=True)
class SystemScores:
    """Scores of one system on one set with one seed (None: it draws no random numbers), with their marks.

    folder: of its score files. why: the reason for which there is no official result. mix: weights of an ensemble.
    """

    scores: Scores
    folder: Path
    result: Result | None
    why: str = ""
    mix: Mix | None = None

    @property
    def system(self) -> str:
        """Name of the system."""
        return self.scores.system

    @property
    def set(self) -> str:
        """Name of the set, such as `dcase2025 dev`."""
        return self.scores.set

    @property
    def seed(self) -> int | None:
        """Of its random numbers; None if it draws none."""
        return self.scores.seed

    @property
    def marks(self) -> Mapping[str, str]:
        """Marks that are shown wherever its numbers are, mark -> reason."""
        return self.scores.marks

    @property
    def tuned(self) -> bool:
        """Whether its scores used labels of the test clips."""
        return TUNED in self.marks

    @property
    def shown(self) -> str:
        """Its name with its marks."""
        return self.scores.label

    @property
    def left_out(self) -> float | None:
        """Of an ensemble: its official score with each machine scored by weights found on the others; None if
        unknown."""
        if self.mix is None or self.result is None:
            return None
        if self.mix.label_free:
            return self.result.official_score
        return self.mix.left_out if self.mix.tuned_on == self.set else None

    @property
    def label(self) -> str:
        """Its name with marks and seed."""
        return self.shown + (f", seed {self.seed}" if self.seed is not None else "")


@dataclass(frozen=True)
class Failed:
    """A task, system or ensemble that failed, and why."""

    name: str
    error: HarkenError


@dataclass(frozen=True)
class Run:
    """Results of a run: scores of each system, recordings that could not be used, failures, notes.

    unscored: test clips without a score, by set, which its official numbers leave out.
    """

    folder: Path
    recipe: Recipe
    units: tuple[Unit, ...]
    clips: tuple[Clip, ...]
    systems: tuple[SystemScores, ...]
    quarantined: tuple[Quarantined, ...]
    unscored: dict[str, tuple[str, ...]]
    failures: tuple[Failed, ...]
    findings: tuple[DataFinding, ...]
    notes: tuple[str, ...]

    @property
    def caution(self) -> str:
        """Warning on results from few clips; empty for sets of the usual size."""
        smallest = min(sum(clip.split == "test" for clip in unit.clips) for unit in self.units)
        if smallest >= FEW_CLIPS:
            return ""
        return f"some machines have as few as {smallest} test clips: their numbers are uncertain"

    def as_json(self) -> dict[str, Any]:
        """Official numbers by set and system: each seed, mean and standard deviation."""
        sets: dict[str, dict[str, Any]] = defaultdict(dict)
        for (label, _), group in grouped(self.systems).items():
            results = {str(scored.seed if scored.seed is not None else "-"): scored.result for scored in group}
            entry: dict[str, Any] = {
                "seeds": {seed: result.as_json() if result else None for seed, result in results.items()}
            }
            scores = [result.official_score for result in results.values() if result is not None]
            if scores:
                entry |= {"official_score": float(np.mean(scores)), "official_score_std": float(np.std(scores))}
            if group[0].marks:
                entry["marks"] = dict(group[0].marks)
            if group[0].mix is not None:
                entry["mix"] = asdict(group[0].mix)
            sets[label][group[0].system] = entry
        return {
            "schema": SCHEMA,
            "recipe": self.recipe.name,
            "sets": sets,
            "quarantined": [asdict(row) for row in self.quarantined],
            "unscored": {label: list(clips) for label, clips in self.unscored.items()},
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
            "failed": [{"task": failure.name, "error": str(failure.error)} for failure in self.failures],
        }


def grouped(systems: Sequence[SystemScores]) -> dict[tuple[str, str], list[SystemScores]]:
    """Seeds of each (set, system as it is shown)."""
    by_system: dict[tuple[str, str], list[SystemScores]] = defaultdict(list)
    for scores in systems:
        by_system[scores.set, scores.shown].append(scores)
    return dict(by_system)

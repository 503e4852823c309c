"""Fitted detectors as members: their scores of recordings, and the held-out scores of what they learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harken.core.errors import HarkenError
from harken.data.clips import clips_from_files
from harken.data.names import without_ending
from harken.data.truth import Section
from harken.ensemble.member import Member, Source, Train, member_of
from harken.evaluation.score_files import System

#: machine and section of recordings whose names tell none
MACHINE, SECTION = "recordings", "00"


class Scorer(Protocol):
    """What a member needs of a fitted detector: `harken.load` gives one."""

    @property
    def training(self) -> Any:
        """Has `names` and the held-out `scores_N` of the training recordings."""

    def score_many(self, paths: Iterable[str | Path]) -> Iterator[Any]:
        """Verdicts with `score`, or `error`, in the order of paths."""


@dataclass(frozen=True)
class Bundles:
    """Recordings of one machine, and how a bundle is opened (`harken.load`)."""

    recordings: Sequence[Path]
    open: Callable[[Path], Scorer]

    def member(self, path: Path) -> Member:
        """A bundle as a member. Raises HarkenError for a recording that cannot be scored, or two of one name."""
        detector = self.open(path)
        system = System(path.absolute().name.removesuffix(".harken"))
        for clip, verdict in zip(clips_from_files(self.recordings), detector.score_many(self.recordings), strict=True):
            if verdict.error is not None:
                raise verdict.error
            key: Section = (MACHINE, clip.section or SECTION)
            name = without_ending(clip.path.name)
            rows = system.scores.setdefault(key, {})
            if name in rows:
                raise HarkenError("two recordings have this name", file=clip.path, next_step="Give each its own")
            rows[name] = float(verdict.score)
        held_out = Train(np.asarray(detector.training.scores_N, dtype=np.float64), tuple(detector.training.names))
        return member_of(system, dict.fromkeys(system.scores, held_out), Source(path, bundle=True))

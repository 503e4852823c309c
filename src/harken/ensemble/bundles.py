"""Fitted detectors as members: their scores of recordings, and the held-out scores of their training clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harken.core.errors import HarkenError
from harken.data.clips import clips_from_files
from harken.ensemble.member import Member, Source
from harken.evaluation.scores import ScoreRow, Scores

#: machine and section of recordings without them in their names
MACHINE, SECTION = "recordings", "00"


class Scorer(Protocol):
    """What a member needs of a fitted detector, as `harken.load` returns it."""

    @property
    def training(self) -> Any:
        """Has `names` and the held-out `scores_N` of the training recordings."""

    def score_many(self, paths: Iterable[str | Path]) -> Iterator[Any]:
        """Verdicts with `score`, or `error`, in the order of paths."""


def _highest(verdicts: Sequence[Any]) -> float:
    """The score of a recording; of a long one, that of its most anomalous segment."""
    for verdict in verdicts:
        if verdict.error is not None:
            raise verdict.error
    scores = [float(verdict.score) for verdict in verdicts if verdict.score is not None]
    if not scores:
        verdict = verdicts[0]
        raise HarkenError(f"is not judged: {verdict.not_judged}", file=verdict.path, next_step="Leave it out")
    return max(scores)


@dataclass(frozen=True)
class Bundles:
    """Recordings of one machine, and the function that opens a bundle (`harken.load`)."""

    recordings: Sequence[Path]
    open: Callable[[Path], Scorer]

    def member(self, path: Path) -> Member:
        """A bundle as a member. Raises HarkenError for a recording that cannot be scored, or two of the same name."""
        detector = self.open(path)
        rows = []
        by_recording = groupby(detector.score_many(self.recordings), key=lambda verdict: verdict.path)
        for clip, (_, verdicts) in zip(clips_from_files(self.recordings), by_recording, strict=True):
            score = _highest(list(verdicts))
            rows.append(ScoreRow(clip.clip_id, clip.path.name, MACHINE, clip.section or SECTION, "test", score))
        training = detector.training
        rows += [
            ScoreRow(f"training/{name}", name.replace("/", "_"), MACHINE, SECTION, "train", score)
            for name, score in zip(
                training.names, np.asarray(training.scores_N, dtype=np.float64).tolist(), strict=True
            )
        ]
        name = path.absolute().name.removesuffix(".harken")
        return Member(Scores.of_rows(rows, name, fitted_on="machine"), Source(path, bundle=True))

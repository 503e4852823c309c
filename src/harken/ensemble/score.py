"""A bag applied to scores: the ensemble's score files in the official layout, with decisions where possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harken.core.errors import HarkenError
from harken.core.threads import one_thread
from harken.detection.calibration import Calibration
from harken.detection.rates import parse_rate
from harken.ensemble.bag import Bag, Members, leaf_names
from harken.ensemble.bundles import Bundles
from harken.ensemble.member import Member
from harken.ensemble.mix import mix
from harken.evaluation.score_files import score_files, write_score_files
from harken.evaluation.scores import Scores


def apply(
    bag: Bag,
    members: Sequence[Member] | None = None,
    *,
    bundles: Bundles | None = None,
    data_set: str | None = None,
) -> Scores:
    """The ensemble's scores of the clips of `members`, found by name; where that is None, of the members at the paths
    of the bag. bundles: for members that are bundles. data_set: of runs, instead of the one that the bag names.

    Raises HarkenError for members that are missing, score different clips or cannot be normalised.
    """
    if members is not None:
        for name, count in leaf_names(bag).items():
            if count > 1:
                raise HarkenError(
                    f"{count} members of the bag are named {name}",
                    next_step="Rename them to apply the bag to other members",
                )
    with one_thread():
        return mix(bag, Members(members, bundles, data_set))


def decided(scores: Scores, false_alarms: str = "10%") -> Scores:
    """The scores with decisions by the threshold of a false-alarm rate on training clips. In sections without held-out
    scores, the members' weighted vote stays, where all of them made decisions."""
    rate = parse_rate(false_alarms, 10.0)
    thresholds = {}
    for key in scores.sections():
        train_N = scores.held_out(key).score_N
        if len(train_N):
            thresholds[key] = Calibration.fit(train_N).threshold(rate)
    rows = []
    for row in scores.rows():
        threshold = thresholds.get((row.machine, row.section))
        if row.split == "test" and threshold is not None:
            row = row._replace(decision=int(row.score > threshold))
        rows.append(row.decision)
    return replace(scores, decision_N=np.array(rows, dtype=np.int8))


def write_scores(scores: Scores, folder: Path, *, false_alarms: str = "10%") -> list[str]:
    """Decide, and write score files in the official layout, held-out scores of training clips and the marks, so
    that the ensemble can be a member of another one; returns the names of the files.

    Raises HarkenError where the folder holds other score files.
    """
    scores = decided(scores, false_alarms)
    names = score_files(scores)
    stale = [file.name for file in folder.glob("*_score_*.csv") if file.name not in names] if folder.is_dir() else []
    if stale:
        raise HarkenError(f"holds other scores already ({min(stale)})", file=folder, next_step="Choose another folder")
    return write_score_files(scores, folder)

"""combine: scores of several detectors as one, without labels and without statistics of test clips."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.data.truth import Section
from harken.detection.calibration import Calibration
from harken.detection.rates import parse_rate
from harken.evaluation.scores import UNDECIDED, ScoreRow, Scores, read_scores, write_scores

#: training clips with held-out scores of every member, to combine its test clips
_FEWEST = 3


class CombineStage(Stage):
    """`scores.parquet`, `thresholds.json` and `notes.json`, as of detect.

    score(x) = sum_j w_j (s_j(x) - m_j) / v_j, with m_j and v_j the mean and deviation of member j's held-out scores of
    the training clips of that section (of the whole machine, where its model was fitted on that). Held-out scores are
    those of the training clips of which every member has one. A section that a member does not score is left out.
    """

    version = 2
    makes = "scores"
    brief = True
    inputs: ClassVar = {"scores": Input("scores", many=True)}

    class Parameters(Settings):
        """weights: of the members, in their order; None is as much of each. false_alarms: as of detect."""

        weights: tuple[float, ...] | None = None
        false_alarms: str = "10%"

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        folders = context.folders("scores")
        count = len(folders)
        weights = np.array(parameters.weights if parameters.weights is not None else [1.0] * count)
        if len(weights) != count or not (weights >= 0).all() or weights.sum() == 0:
            raise HarkenError(
                f"{count} members need as many weights, none below zero and not all zero", next_step="Correct weights"
            )
        rate = parse_rate(parameters.false_alarms, 10.0)
        members = [table for folder in folders for table in read_scores(folder / "scores.parquet")]
        keys = [key for key in members[0].sections() if all(key in member.sections() for member in members)]
        notes = [
            f"{key[0]} section {key[1]}: not all members have scores of it"
            for key in sorted({key for member in members for key in member.sections()} - {*keys})
        ]
        if not keys and notes:
            raise HarkenError(
                "the members score no section in common", file=context.clips[0].machine,
                next_step="Combine detectors that score the same sections",
            )  # fmt: skip
        rows: list[ScoreRow] = []
        thresholds: dict[str, float] = {}
        held_out: dict[str, ScoreRow] = {}
        for key in keys:
            test, train = _combined(members, key, weights / weights.sum())
            thresholds[key[1]] = Calibration.fit([row.score for row in train]).threshold(rate)
            rows += [row._replace(decision=int(row.score > thresholds[key[1]])) for row in test]
            held_out |= {row.clip_id: row for row in train}
        wide = all(member.fitted_on == "machine" for member in members)
        table = Scores.of_rows([*rows, *held_out.values()], fitted_on="machine" if wide else "section")
        write_scores(table, context.out / "scores.parquet")
        (context.out / "thresholds.json").write_text(json_text(thresholds))
        (context.out / "notes.json").write_text(json_text(notes))


def _combined(
    members: list[Scores], key: Section, weights_M: NDArray[np.float64]
) -> tuple[list[ScoreRow], list[ScoreRow]]:
    """Test and training clips of a section. Raises HarkenError where too few training clips are common to all."""
    where = f"{key[0]} section {key[1]}"
    spread = []
    for member in members:
        train_S = member.held_out(key).score_N
        if len(train_S) < _FEWEST:
            raise HarkenError(
                f"a member has {len(train_S)} held-out scores of training clips", file=where,
                next_step="Combine systems that have held-out scores",
            )  # fmt: skip
        spread.append((train_S.mean(), train_S.std() or 1.0))

    def mixed(tables: list[Scores]) -> list[ScoreRow]:
        scores = [dict(zip(table.clip_id, table.score_N.tolist(), strict=True)) for table in tables]
        rows = []
        for row in tables[0].rows():
            if all(row.clip_id in of for of in scores):
                terms = zip(weights_M, scores, spread, strict=True)
                score = float(sum(w * (of[row.clip_id] - m) / v for w, of, (m, v) in terms))
                rows.append(row._replace(score=score, decision=UNDECIDED))
        return rows

    train = mixed([member.held_out(key) for member in members])
    if len(train) < _FEWEST:
        raise HarkenError(
            "members have learned from different clips",
            file=where,
            next_step="Combine detectors of the same recordings",
        )
    return mixed([member.of_section(key) for member in members]), train

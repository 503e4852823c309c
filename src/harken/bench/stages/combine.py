"""combine: scores of several detectors as one, without labels and without statistics of test clips."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np

from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.tables import Scored, read_arrays, read_scores, write_arrays, write_scores
from harken.core.errors import HarkenError
from harken.detection.calibration import Calibration, parse_rate


class CombineStage(Stage):
    """`scores.parquet`, `train_scores.safetensors` and `thresholds.json`, as of detect.

    score(x) = sum_j w_j (s_j(x) - m_j) / v_j, with m_j and v_j the mean and deviation of member j's held-out scores of
    the training clips of that section.
    """

    makes = "scores"
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
        weights = weights / weights.sum()
        rate = parse_rate(parameters.false_alarms, clip_seconds=10.0)
        members = [read_arrays(folder / "train_scores.safetensors") for folder in folders]
        scored = [{row.clip_id: row for row in read_scores(folder)} for folder in folders]
        sections = [section for section in members[0] if all(section in member for member in members)]
        held_out: dict[str, np.ndarray] = {}
        spread: dict[str, list[tuple[float, float]]] = {}
        thresholds: dict[str, float] = {}
        for section in sections:
            scores = [np.asarray(member[section], dtype=np.float64) for member in members]
            if len({len(values) for values in scores}) > 1:
                raise HarkenError(
                    "members have learned from different clips",
                    file=f"{context.clips[0].machine} section {section}",
                    next_step="Combine detectors of the same recordings",
                )
            spread[section] = [(values.mean(), values.std() or 1.0) for values in scores]
            held_out[section] = np.sum(
                [w * (s - m) / v for w, s, (m, v) in zip(weights, scores, spread[section], strict=True)], axis=0
            )
            thresholds[section] = Calibration.fit(held_out[section]).threshold(rate)
        rows = []
        for clip_id, row in scored[0].items():
            section = row.section if row.section in spread else "all sections"
            if section not in spread or not all(clip_id in one for one in scored):
                continue
            score = sum(
                w * (one[clip_id].score - m) / v
                for w, one, (m, v) in zip(weights, scored, spread[section], strict=True)
            )
            decision = int(score > thresholds[section])
            rows.append(Scored(clip_id, row.machine, row.section, row.file, float(score), decision))
        write_scores(context.out, rows)
        write_arrays(context.out / "train_scores.safetensors", **held_out)
        (context.out / "thresholds.json").write_text(json.dumps(thresholds))

"""The further numbers that the official evaluators of 2022-2026 print, equal to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harken.evaluation.evaluate import Result
from harken.evaluation.metrics import EPSILON, Roc
from harken.evaluation.rules import SectionScores

Float64 = NDArray[np.float64]

#: in the order of the evaluators' columns
MEASURES = ("AUC", "pAUC", "precision", "recall", "F1")


def evaluator_numbers(result: Result) -> dict[str, list[float] | float]:
    """Means over all machines, sections and domains of AUC, pAUC and, where decided, precision, recall and F1; the
    official score and its "ci95".

    Two oddities are kept: pAUC, which has no domain, counts in both halves; "ci95" is the mean of the jackknife
    half-widths (Mesaros et al. 2019, section IV) of AUC and pAUC on the pooled scores of all machines, which means
    little where their scales differ; `bootstrap` has meaningful intervals.
    """
    rows = [{**result.numbers[key], **result.extra[key]} for key in result.numbers]
    sources, targets = [], []
    for measure in MEASURES:
        name = measure.lower()
        if name == "pauc":
            sources.append([row["pauc"] for row in rows])
            targets.append([row["pauc"] for row in rows])
        elif all(f"{name}_source" in row and f"{name}_target" in row for row in rows):
            sources.append([row[f"{name}_source"] for row in rows])
            targets.append([row[f"{name}_target"] for row in rows])
    both = np.concatenate([np.array(sources), np.array(targets)], axis=1)
    half = len(rows)
    over_all = "over all machine types, sections, and domains"
    return {
        f"arithmetic mean {over_all}": [float(value) for value in np.mean(both, axis=1)],
        f"harmonic mean {over_all}": _harmonic(both),
        f"source harmonic mean {over_all}": _harmonic(both[:, :half]),
        f"target harmonic mean {over_all}": _harmonic(both[:, half:]),
        "official score": result.official_score,
        "official score ci95": pooled_jackknife(result.sections),
    }


def pooled_jackknife(sections: Sequence[SectionScores]) -> float:
    """Mean of the 95 % jackknife half-widths of AUC and pAUC over the clips of all sections together."""
    anomaly = np.concatenate([section.anomaly_N for section in sections])
    scores = np.concatenate([section.scores_N for section in sections])
    areas = _without_each(anomaly, scores, lambda roc: (roc.area(), roc.partial_area()))
    return float(np.mean([_half_width(area) for area in areas.T]))


def _without_each(
    anomaly_N: NDArray[np.bool_], scores_N: Float64, measure: Callable[[Roc], tuple[float, ...]]
) -> Float64:
    """(clips, measures): the measures with each clip left out. Sorted once, not once per clip."""
    order = np.argsort(-scores_N, kind="stable")
    sorted_anomaly, sorted_scores = anomaly_N[order].astype(np.float64), scores_N[order]
    measures: list[tuple[float, ...]] = [()] * len(order)
    for position, clip in enumerate(order):
        measures[clip] = measure(Roc.of_sorted(np.delete(sorted_anomaly, position), np.delete(sorted_scores, position)))
    return np.array(measures)


def _half_width(without_N: Float64) -> float:
    from scipy.stats import t

    count = len(without_N)
    # Summed as a list, in the order of clips.
    deviations = [(value - np.mean(without_N)) ** 2 for value in without_N]
    return float(np.abs(t.ppf((1 - 0.95) / 2, count - 1)) * np.sqrt(np.sum(deviations) / (count * (count - 1))))


def _harmonic(rows_RN: Float64) -> list[float]:
    return [float(value) for value in 1.0 / np.mean(1.0 / np.maximum(rows_RN, EPSILON), axis=1)]

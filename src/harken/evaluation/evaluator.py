"""The further numbers that the official evaluators print, equal to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harken.data.truth import Section
from harken.evaluation.evaluate import Result
from harken.evaluation.metrics import EPSILON, Roc
from harken.evaluation.rules import SectionScores

Float64 = NDArray[np.float64]

#: in the order of the evaluators' columns
MEASURES = ("AUC", "pAUC", "precision", "recall", "F1")


def evaluator_numbers(result: Result) -> dict[str, list[float] | float]:
    """What the evaluator of the year prints over all machines, of AUC, pAUC and, where decided, precision, recall, F1.

    2022-2026: means over sections and domains, the official score and its "ci95". Two oddities are kept: pAUC, which
    has no domain, counts in both halves; "ci95" is the mean of the jackknife half-widths (Mesaros et al. 2019, section
    IV) of AUC and pAUC on the pooled scores of all machines, which means little where their scales differ; `bootstrap`
    has meaningful intervals. 2021: means over machines, domains and sections, pAUC of each domain. 2020: nothing.
    """
    over_all = "over all machine types, sections, and domains"
    if result.rule == "machine_id":
        return {}
    if result.rule == "domain_adaptation":
        rows_NR = np.concatenate([_by_domain(result, machine) for machine in _machines(result)])
        return {
            f"arithmetic mean {over_all}": np.mean(rows_NR, axis=0).tolist(),
            f"harmonic mean {over_all}": _harmonic(rows_NR, axis=0),
        }
    rows_RN = _halves(result, list(result.numbers))
    half = len(result.numbers)
    return {
        f"arithmetic mean {over_all}": np.mean(rows_RN, axis=1).tolist(),
        f"harmonic mean {over_all}": _harmonic(rows_RN),
        f"source harmonic mean {over_all}": _harmonic(rows_RN[:, :half]),
        f"target harmonic mean {over_all}": _harmonic(rows_RN[:, half:]),
        "official score": result.official_score,
        "official score ci95": pooled_jackknife(result.sections),
    }


def evaluator_machines(result: Result) -> dict[str, dict[str, list[float]]]:
    """What the evaluator of the year prints per machine, of the measures of `evaluator_numbers`.

    2020: the average of AUC and pAUC over IDs. 2021: arithmetic and harmonic mean over domains and sections. 2022-2026:
    these, and the harmonic mean of each domain. An oddity of the evaluator of 2022, the only year with several
    sections, is kept: its "source" is half as many numbers as there are sections, its "target" are all others.
    """
    machines: dict[str, dict[str, list[float]]] = {}
    for machine in _machines(result):
        keys = [key for key in result.numbers if key[0] == machine]
        if result.rule == "machine_id":
            rows = [[result.numbers[key]["auc"], result.numbers[key]["pauc"]] for key in keys]
            machines[machine] = {"Average": np.mean(np.array(rows), axis=0).tolist()}
            continue
        if result.rule == "domain_adaptation":
            rows_NR = _by_domain(result, machine)
            machines[machine] = {
                "arithmetic mean": np.mean(rows_NR, axis=0).tolist(), "harmonic mean": _harmonic(rows_NR, axis=0)
            }  # fmt: skip
            continue
        rows_RN = _halves(result, keys)
        split = len(keys) // 2 if len(keys) > 1 else 1
        machines[machine] = {
            "arithmetic mean": np.mean(rows_RN, axis=1).tolist(),
            "harmonic mean": _harmonic(rows_RN),
            "source harmonic mean": _harmonic(rows_RN[:, :split]),
            "target harmonic mean": _harmonic(rows_RN[:, split:]),
        }
    return machines


def _machines(result: Result) -> list[str]:
    return list(dict.fromkeys(machine for machine, _ in result.numbers))


def _halves(result: Result, keys: Sequence[Section]) -> Float64:
    """(measures, 2 sections): the numbers of the source domain of these sections, then of the target domain."""
    rows = [{**result.extra[key], **result.numbers[key]} for key in keys]
    both = []
    for measure in _measures(result):
        names = ("pauc", "pauc") if measure == "pauc" else (f"{measure}_source", f"{measure}_target")
        both.append([row[name] for name in names for row in rows])
    return np.array(both)


def _by_domain(result: Result, machine: str) -> Float64:
    """(2 sections, measures): the numbers of a machine's sections in the source domain, then in the target domain."""
    rows = [{**result.extra[key], **result.numbers[key]} for key in result.numbers if key[0] == machine]
    return np.array(
        [[row[f"{name}_{domain}"] for name in _measures(result)] for domain in ("source", "target") for row in rows]
    )


def _measures(result: Result) -> list[str]:
    """Names of the measures that all sections have."""
    names = [measure.lower() for measure in MEASURES]
    decided = all(f"f1_{domain}" in row for row in result.extra.values() for domain in ("source", "target"))
    return names if decided else names[:2]


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


def _harmonic(rows: Float64, axis: int = 1) -> list[float]:
    return [float(value) for value in 1.0 / np.mean(1.0 / np.maximum(rows, EPSILON), axis=axis)]

"""Bootstrap confidence intervals of the official score with respect to the sampled clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.evaluation.evaluate import Result
from harken.evaluation.metrics import EPSILON, MAX_FPR
from harken.evaluation.rules import SectionScores

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Percentile bootstrap interval of the official score; draws_B are the resampled scores."""

    low: float
    high: float
    level: float
    draws_B: Float64


def bootstrap(result: Result, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
    """Resample the clips of each section, domain and condition with replacement (Efron 1979), `draws` times.

    Machines are not resampled: the interval covers other clips of these machines, not other machines.
    """
    rng = np.random.default_rng(seed)
    columns = [_resampled(section, result.rule, draws, rng) for section in result.sections]
    if result.rule == "machine_id":
        by_machine: dict[str, list[Float64]] = {}
        for section, column in zip(result.sections, columns, strict=True):
            by_machine.setdefault(section.machine, []).append(np.mean(column, axis=0))
        scores_B = np.mean([np.mean(rows, axis=0) for rows in by_machine.values()], axis=0)
    else:
        numbers = np.maximum(np.concatenate(columns), EPSILON)
        scores_B = 1.0 / np.mean(1.0 / numbers, axis=0)
    low, high = np.quantile(scores_B, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, scores_B)


def _resampled(section: SectionScores, rule: str, draws: int, rng: np.random.Generator) -> Float64:
    """(metrics, draws) official metrics of one section, resampled."""
    order = np.argsort(-section.scores_N, kind="stable")
    anomaly, domain, scores = section.anomaly_N[order], section.domain_N[order], section.scores_N[order]
    counts_BN = np.zeros((draws, len(order)))
    for stratum in {(bool(a), int(d)) for a, d in zip(anomaly, domain, strict=True)}:
        inside = np.flatnonzero((anomaly == stratum[0]) & (domain == stratum[1]))
        counts_BN[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=draws)
    levels = np.r_[0, np.flatnonzero(np.diff(scores)) + 1]
    everything = np.ones(len(order), dtype=bool)
    if rule == "domain_generalization":
        cells = [((domain == 0) | anomaly, False), ((domain == 1) | anomaly, False), (everything, True)]
    elif rule == "domain_adaptation":
        cells = [(domain == number, partial) for number in (0, 1) for partial in (False, True)]
    else:
        cells = [(everything, False), (everything, True)]
    return np.array([_areas(counts_BN * inside, anomaly, levels, partial) for inside, partial in cells])


def _areas(counts_BN: Float64, anomaly_N: NDArray[np.bool_], levels: NDArray[np.intp], partial: bool) -> Float64:
    """(draws,) areas under the ROC curves of clips with multiplicities `counts_BN`, sorted by descending score;
    `levels` are the indices of the first clips of equal scores."""
    hits = np.add.reduceat(counts_BN * anomaly_N, levels, axis=1)
    false = np.add.reduceat(counts_BN * ~anomaly_N, levels, axis=1)
    tpr = np.cumsum(hits, axis=1) / hits.sum(axis=1, keepdims=True)
    total = false.sum(axis=1, keepdims=True)
    start = tpr - hits / hits.sum(axis=1, keepdims=True)
    if not partial:
        return ((tpr + start) / 2 * false / total).sum(axis=1)
    width = false / total
    left = np.cumsum(width, axis=1) - width
    # Share of each step below the maximum FPR.
    share = np.clip((MAX_FPR - left) / np.where(width > 0, width, 1.0), 0.0, 1.0)
    area = (width * share * (start + (tpr - start) * share / 2)).sum(axis=1)
    chance = 0.5 * MAX_FPR**2
    return 0.5 * (1 + (area - chance) / (MAX_FPR - chance))

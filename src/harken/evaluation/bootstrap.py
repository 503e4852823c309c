"""Bootstrap of the official score over clips and machines; paired where systems are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.evaluation.evaluate import Result
from harken.evaluation.metrics import EPSILON, MAX_FPR
from harken.evaluation.rules import SectionScores

Float64 = NDArray[np.float64]

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Percentile bootstrap interval of the official score; draws_B are the resampled scores."""

    low: float
    high: float
    level: float
    draws_B: Float64


def bootstrap(result: Result, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> Interval:
    """Resample the clips of each section, domain and condition with replacement (Efron 1979), `draws` times.

    Machines are not resampled: the interval covers other clips of these machines, not other machines.
    """
    scores_B = paired_draws([result], draws=draws, seed=seed)[0]
    return Interval(*interval_of(scores_B, level), level, scores_B)


def interval_of(draws_B: Float64, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval (low, high) of resampled values."""
    low, high = np.quantile(draws_B, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_draws(
    results: Sequence[Result], *, draws: int = DRAWS, seed: int = 0, over_machines: bool = False
) -> Float64:
    """(systems, draws) official scores of systems on the same resamples, so that their differences have an interval.

    Clips are resampled within each section, domain and condition. over_machines: machines are resampled first, each
    with clips of its own in every place where it was drawn (two-stage bootstrap, Davison and Hinkley 1997, 3.8).
    Raises HarkenError for systems that were scored on different clips, or by different rules.
    """
    if not over_machines:
        return draws_over_clips(results, draws=draws, seed=seed)[0]
    check_alike(results)
    machines = _machines(results)
    rng = np.random.default_rng(seed)
    drawn_BM = rng.integers(len(machines), size=(draws, len(machines)))
    totals_SB, weights_B = np.zeros((len(results), draws)), np.zeros(draws)
    for number, machine in enumerate(machines):
        draw_K = np.nonzero(drawn_BM == number)[0]
        terms_SK, weight = _terms(results, machine, len(draw_K), rng)
        weights_B += weight * np.bincount(draw_K, minlength=draws)
        for totals_B, terms_K in zip(totals_SB, terms_SK, strict=True):
            totals_B += np.bincount(draw_K, terms_K, minlength=draws)
    return _scores(totals_SB, weights_B, results[0].rule)


def draws_over_clips(
    results: Sequence[Result], *, draws: int = DRAWS, seed: int = 0
) -> tuple[Float64, dict[str, Float64]]:
    """(systems, draws) official scores over resampled clips, see `paired_draws`, and the same of each machine alone."""
    check_alike(results)
    rule = results[0].rule
    rng = np.random.default_rng(seed)
    terms = {machine: _terms(results, machine, draws, rng) for machine in _machines(results)}
    totals_SB = np.sum([terms_SB for terms_SB, _ in terms.values()], axis=0)
    total = sum(weight for _, weight in terms.values())
    alone = {machine: _scores(terms_SB, weight, rule) for machine, (terms_SB, weight) in terms.items()}
    return _scores(totals_SB, total, rule), alone


def _machines(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(section.machine for section in results[0].sections))


def _terms(results: Sequence[Result], machine: str, draws: int, rng: np.random.Generator) -> tuple[Float64, int]:
    """(systems, draws) what a machine adds to the official score in resamples of its clips, and the weight of that.

    Of 2020 the mean over its sections of AUC and pAUC, of weight 1; else the sum of the inverses of all its numbers.
    """
    rule = results[0].rule
    columns: list[list[Float64]] = [[] for _ in results]
    for row, section in enumerate(results[0].sections):
        if section.machine == machine:
            counts_BN = _multiplicities(section, draws, rng)
            for column, result in zip(columns, results, strict=True):
                column.append(_resampled(result.sections[row], rule, counts_BN))
    if rule == "machine_id":
        return np.array([np.mean([np.mean(numbers, axis=0) for numbers in column], axis=0) for column in columns]), 1
    inverses = [np.sum(1.0 / np.maximum(np.concatenate(column), EPSILON), axis=0) for column in columns]
    return np.array(inverses), sum(map(len, columns[0]))


def _scores(totals_SB: Float64, weights: Float64 | int, rule: str) -> Float64:
    return totals_SB / weights if rule == "machine_id" else weights / totals_SB


def check_alike(results: Sequence[Result]) -> None:
    """Raise HarkenError unless all systems were scored on the same clips with the same labels, by the same rule."""
    first = results[0]
    for result in results[1:]:
        alike = result.rule == first.rule and len(result.sections) == len(first.sections)
        if not alike or not all(map(_same_clips, first.sections, result.sections)):
            raise HarkenError(
                f"{first.system} and {result.system} were not scored on the same clips by the same rule",
                next_step="Compare them on the clips that both have",
            )


def _same_clips(first: SectionScores, second: SectionScores) -> bool:
    return (first.key, first.names) == (second.key, second.names) and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in ("anomaly_N", "domain_N")
    )


def _multiplicities(section: SectionScores, draws: int, rng: np.random.Generator) -> Float64:
    """(draws, clips) how often each clip of a section is drawn, in the order of its names."""
    counts_BN = np.zeros((draws, len(section.names)))
    strata = sorted({(bool(a), int(d)) for a, d in zip(section.anomaly_N, section.domain_N, strict=True)})
    for anomaly, domain in strata:
        inside = np.flatnonzero((section.anomaly_N == anomaly) & (section.domain_N == domain))
        counts_BN[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=draws)
    return counts_BN


def _resampled(section: SectionScores, rule: str, counts_BN: Float64) -> Float64:
    """(metrics, draws) official metrics of one section whose clips have these multiplicities."""
    order = np.argsort(-section.scores_N, kind="stable")
    anomaly, domain, scores = section.anomaly_N[order], section.domain_N[order], section.scores_N[order]
    sorted_BN = counts_BN[:, order]
    levels = np.r_[0, np.flatnonzero(np.diff(scores)) + 1]
    everything = np.ones(len(order), dtype=bool)
    if rule == "domain_generalization":
        cells = [((domain == 0) | anomaly, False), ((domain == 1) | anomaly, False), (everything, True)]
    elif rule == "domain_adaptation":
        cells = [(domain == number, partial) for number in (0, 1) for partial in (False, True)]
    else:
        cells = [(everything, False), (everything, True)]
    return np.array([_areas(sorted_BN * inside, anomaly, levels, partial) for inside, partial in cells])


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

"""Normal clips whose held-out scores are too high to set a threshold by."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

#: deviations of the log scores above their median beyond which a score is an outlier (`benchmarks/contamination.py`)
DEVIATIONS = 5.0
#: outliers are at most this share of the clips, or two
MOST = 0.02
#: deviations between outliers and all other scores
GAP = 1.0
#: fewer clips have no outliers, since their deviation is not known
LEAST_CLIPS = 10
_UPPER = 0.9


def far_scores(scores_N: ArrayLike, *, deviations: float = DEVIATIONS) -> NDArray[np.bool_]:
    """(N,) whether each held-out score is far above the others.

    Beyond median + `deviations` x deviation of the log scores, where the deviation is that of a Gaussian with the same
    median and ninth decile: the upper half counts, and up to a tenth of far scores do not move it. Scores of zero or
    less have no logarithm: none is far where the median is not positive.
    """
    return in_deviations(np.asarray(scores_N, dtype=np.float64)) > deviations


def outliers(scores_N: ArrayLike, *, deviations: float = DEVIATIONS, most: float = MOST) -> NDArray[np.bool_]:
    """(N,) whether each held-out score is an outlier: a door, a run-in, a fault among the normal recordings.

    As many of the highest `far_scores` as stand `GAP` deviations above all others, at most the share `most`, or two:
    many that score alike are a rare state.
    """
    away_N = in_deviations(np.asarray(scores_N, dtype=np.float64))
    return beyond_gap(away_N, deviations=deviations, gap=GAP, most=max(2, int(most * len(away_N))))


def beyond_gap(away_N: NDArray[np.float64], *, deviations: float, gap: float, most: int) -> NDArray[np.bool_]:
    """(N,) as many of the highest values above `deviations` as stand `gap` above all others, at most `most`."""
    order_N = np.argsort(-away_N, kind="stable")
    highest_N = np.zeros(len(away_N), dtype=bool)
    for count in range(most, 0, -1):
        if count < len(away_N):
            lowest, next_lower = away_N[order_N[count - 1]], away_N[order_N[count]]
            if lowest > deviations and lowest - next_lower > gap:
                highest_N[order_N[:count]] = True
                break
    return highest_N


def counted(
    scores_N: ArrayLike,
    picked_N: NDArray[np.bool_],
    domains_N: ArrayLike,
    learned_N: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """(N,) whether the held-out score of each clip counts for the threshold.

    picked_N: clips that were chosen because their scores were high, as alarms that were none. They are no sample of
    normal sound: of thousands of clips they are the highest, and as so many of a few hundred they would raise every
    threshold. One counts if it scores, by a detector that learned from its like, no higher than all others; one that
    has no like does not. Where that holds for at least half of those of a domain, they are a state of the machine, of
    which also the others count, unless they are far (`far_scores`). learned_N: clips that the detector learned from.
    """
    scores, domains = np.asarray(scores_N, dtype=np.float64), np.asarray(domains_N)
    usable_N = np.ones(len(scores), dtype=bool) if learned_N is None else learned_N
    others_N = usable_N & ~picked_N
    if not (picked_N & usable_N).any() or not others_N.any():
        return usable_N
    counted_N = usable_N & (~picked_N | (scores <= scores[others_N].max()))
    for domain in np.unique(domains[picked_N]):
        of_state_N = usable_N & picked_N & (domains == domain)
        if 2 * counted_N[of_state_N].sum() >= of_state_N.sum():
            together_N = counted_N | of_state_N
            near_N = np.zeros(len(scores), dtype=bool)
            near_N[together_N] = ~far_scores(scores[together_N])
            counted_N |= of_state_N & near_N
    return counted_N


def in_deviations(values_N: NDArray[np.float64], *, upper: float = _UPPER) -> NDArray[np.float64]:
    """(N,) deviations of the log values above their median; 0 where there is no deviation.

    upper: quantile by which the deviation is known, as that of a Gaussian.
    """
    median, high = np.quantile(values_N, [0.5, upper])
    if len(values_N) < LEAST_CLIPS or median <= 0 or high <= median:
        return np.zeros(len(values_N))
    deviation = float(np.log(high / median)) / float(ndtri(upper))
    return np.asarray(np.log(np.maximum(values_N, 1e-3 * median) / median) / deviation)

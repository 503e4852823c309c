"""Scores of different members in one unit, before they are mixed."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Normalise = Literal["train", "gamma", "rank", "none", "transductive", "transductive-rank"]

NORMALISATIONS: tuple[Normalise, ...] = get_args(Normalise)
#: those that look at the test clips: what they give for one clip depends on the others
TRANSDUCTIVE: frozenset[str] = frozenset({"transductive", "transductive-rank"})
#: those that need the scores of training clips
INDUCTIVE: frozenset[str] = frozenset({"train", "gamma", "rank"})
#: another word for the same
_ALIASES = {"gaussian": "train"}
#: beyond this skewness the cube root is no gamma distribution any more
_MOST_SKEW = 3.0


def named(word: str) -> Normalise | None:
    """A normalisation by its name; None for `auto`. Raises ValueError for any other word."""
    word = _ALIASES.get(word, word)
    for name in NORMALISATIONS:
        if name == word:
            return name
    if word == "auto":
        return None
    raise ValueError(f"there is no normalisation {word!r}")


def normalised(how: Normalise, scores_N: Float64, train_S: Float64 | None) -> tuple[Float64, Float64 | None]:
    """Scores of the test clips of one section, and of its training clips where they are known.

    train: in deviations from the mean of the training clips' scores, a Gaussian calibration. gamma: the standard normal
    value of the same probability, by a gamma distribution fitted to them. rank: the same by their ranks. none: as they
    are. transductive: in deviations from the mean of the test clips, the field's usual one. transductive-rank: share of
    test clips that score less. Raises ValueError where the scores it rests on are not there or all equal.
    """
    if how == "none":
        return scores_N, train_S
    if how == "transductive":
        return _deviations(scores_N, *_moments(scores_N, "test")), None
    if how == "transductive-rank":
        return _ranks(scores_N), None
    if train_S is None:
        raise ValueError("has no scores of training clips")
    mean, deviation = _moments(train_S, "training")
    if how == "train":
        return _deviations(scores_N, mean, deviation), _deviations(train_S, mean, deviation)
    if how == "gamma":
        skew = float(np.clip(np.mean(_deviations(np.sort(train_S), mean, deviation) ** 3), -_MOST_SKEW, _MOST_SKEW))
        return (
            _gamma(_deviations(scores_N, mean, deviation), skew),
            _gamma(_deviations(train_S, mean, deviation), skew),
        )
    return _quantiles(scores_N, train_S, deviation), _quantiles(train_S, train_S, deviation)


def _moments(scores_N: Float64, split: str) -> tuple[float, float]:
    # Sorted, since the last bit of a sum depends on its order.
    ordered_N = np.sort(scores_N)
    mean, deviation = float(ordered_N.mean()), float(ordered_N.std())
    # The deviation of equal scores may be a rounding error of their mean.
    if deviation <= 1e-12 * abs(mean) or np.ptp(scores_N) == 0:
        raise ValueError(f"gives all {len(scores_N)} {split} clips the score {scores_N[0]:g}")
    return mean, deviation


def _deviations(scores_N: Float64, mean: float, deviation: float) -> Float64:
    return (scores_N - mean) / deviation


def _gamma(deviations_N: Float64, skew: float) -> Float64:
    """Standard normal values of a gamma distribution (Pearson III) of that skewness, fitted by moments.

    Wilson and Hilferty (1931): the cube root of a gamma variable is nearly normal. It is defined for every score, and
    does not saturate where a probability would be 0 or 1.
    """
    if abs(skew) < 1e-3:
        return deviations_N
    return (np.cbrt(1.0 + deviations_N * skew / 2.0) - 1.0 + skew**2 / 36.0) * 6.0 / skew


def _quantiles(scores_N: Float64, train_S: Float64, deviation: float) -> Float64:
    """Normal scores (Blom 1958) of the training clips, joined by lines; beyond them a line of slope 1 / deviation."""
    from scipy.special import ndtri

    levels, last = np.unique(np.sort(train_S), return_index=True)
    count = len(train_S)
    ends = np.append(last[1:], count)
    # Equal scores share the middle of their ranks.
    values = ndtri(((last + 1 + ends) / 2 - 0.375) / (count + 0.25))
    inside = np.interp(scores_N, levels, values)
    beyond = np.where(scores_N > levels[-1], scores_N - levels[-1], np.minimum(scores_N - levels[0], 0.0))
    return np.asarray(inside + beyond / deviation)


def _ranks(scores_N: Float64) -> Float64:
    from scipy.stats import rankdata

    return np.asarray((rankdata(scores_N) - 0.5) / len(scores_N))

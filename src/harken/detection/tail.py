"""Upper tail of the held-out scores of normal clips: a generalised Pareto law whose shape comes from many machines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

#: share of the scores that the tail is fitted to, and their minimum number (at most half of the scores)
TAIL_SHARE, TAIL_LEAST = 0.2, 10
#: shape of the tail of many scores; chosen on twelve machines, each confirmed by the others (`benchmarks/alarms.py`)
TAIL_SHAPE = 0.05
#: the shape of very few scores: with it the mean is still finite
_HEAVIEST = 0.5


@dataclass(frozen=True)
class Tail:
    """Law of the scores above `base`: P(score > s) = share (1 + shape (s - base) / scale)^(-1/shape).

    share: probability of a score above `base`. scale: in units of the scores.
    """

    base: float
    scale: float
    shape: float
    share: float

    def survival(self, scores_N: ArrayLike) -> Float64:
        """(N,) probability that a normal clip scores above each of the scores, which are at least `base`."""
        beyond_N = np.maximum(np.asarray(scores_N, dtype=np.float64) - self.base, 0.0)
        return self.share * (1.0 + self.shape * beyond_N / self.scale) ** (-1.0 / self.shape)

    def quantile(self, rate: float) -> float:
        """Score that a normal clip exceeds with probability `rate` <= share: the inverse of `survival`."""
        return self.base + self.scale / self.shape * ((self.share / rate) ** self.shape - 1.0)

    def quantiles(self, rates_N: ArrayLike) -> Float64:
        """(N,) as `quantile` of each rate."""
        times_N = self.share / np.asarray(rates_N, dtype=np.float64)
        return np.asarray(self.base + self.scale / self.shape * (times_N**self.shape - 1.0))


@dataclass(frozen=True)
class TailForm:
    """What is known of a tail before any score.

    shape: of many scores. winsorised: the highest score counts as the second highest does, so that one odd clip changes
    little. step: of scores that are whole multiples of one: their mean excess is taken for at least that, since equal
    ones hide how far they are apart.
    """

    shape: float = TAIL_SHAPE
    winsorised: bool = False
    step: float = 0.0


#: of scores of which nothing is known
USUAL_TAIL = TailForm()


def fit_tail(scores_N: Float64, effective: float, form: TailForm = USUAL_TAIL, *, share: float = TAIL_SHARE) -> Tail:
    """Fit the tail to the highest k of N ascending scores.

    Excesses of a high threshold follow a generalised Pareto law (Pickands 1975; Balkema and de Haan 1974). Its
    threshold is the (k + 1)-th highest score, k = max(share N, min(10, N / 2)); its share the conformal p-value there.
    A shape estimated from one machine varies far more than the shapes of machines differ, so it is

        max(shape, 1 / k_eff),    k_eff = k effective / N,

    where 1 / k_eff is that of exponential excesses whose mean is estimated from k_eff values (their predictive law is
    Lomax, of shape parameter k_eff). The scale follows from the mean excess, scale = mean (1 - shape) (Hosking and
    Wallis 1987, method of moments at a given shape).

    effective: number of independent scores that the N are worth.
    """
    count = len(scores_N)
    excesses = min(count - 1, max(round(share * count), min(TAIL_LEAST, count // 2)))
    weight = effective / count
    base = float(scores_N[count - 1 - excesses])
    fitted_shape = min(max(form.shape, 1.0 / max(weight * excesses, 1.0)), _HEAVIEST)
    highest_K = scores_N[count - excesses :]
    if form.winsorised and excesses > 1:
        highest_K = np.minimum(highest_K, highest_K[-2])
    mean_excess = float(np.mean(highest_K - base)) if excesses else 0.0
    # Equal scores give no estimate of the spread; a spread of rounding errors is none.
    smallest = 1e-9 * abs(base) or 1e-9
    mean_excess = mean_excess if mean_excess > smallest else max(abs(base), 1e-6)
    mean_excess = max(mean_excess, form.step)
    return Tail(base, mean_excess * (1.0 - fitted_shape), fitted_shape, (1.0 + weight * excesses) / (effective + 1.0))

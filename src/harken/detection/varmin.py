"""Rescaling of distances by variance minimisation, per domain."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from harken.core.arrays import Stored
from harken.detection.base import Float64, Ints
from harken.detection.density import FLOOR, MIN_CLIPS, floored, neighbour_distances
from harken.detection.in_space import InSpace
from harken.detection.neighbours import Metric, nearest
from harken.detection.space import SpaceName


class VarMin(InSpace):
    """log score(x) = min_y [log d(x, y) - a_g log r(y) - b_g], g the domain of y, a_g and b_g of minimum variance.

    r(y) is the mean distance from normal clip y to its K nearest within its domain. Each normal clip x is scored
    against the others of its domain, with x excluded from r(y); power a_g and bias b_g minimise the variance of these
    scores over all domains: b_g is their mean, a_g in [0, `MAX_POWER`] is found by grid search. A reformulation of
    Matsumoto et al., "Adjusting bias in anomaly scores via variance minimization" (DCASE Workshop 2025).

    It differs from `local_density` with exponent `auto` in three points. There, a is the slope of log d on log r(y) at
    the nearest clip before rescaling, the power of minimum variance for that clip; here the minimum over y is
    recomputed for each power. There, all domains share one power and density; here, each has its own, and a bias. And
    here a clip is not counted as a neighbour of its neighbours, which would make a = 1 look perfect for K = 1.

    neighbours: K. domain_wise: False treats all clips as one domain. A domain of fewer than `MIN_CLIPS` clips uses the
    power that is best over all domains (0.5 if all clips are fewer too), and one of fewer than three is merged with
    the largest. space: see `fit_space`.
    """

    name: ClassVar[str] = "varmin"

    #: training clips mapped into the space, and the factor of distances to each: exp(-b_g) r(y)^-a_g
    bank_: Annotated[Float64, Stored("N D")]
    weights_: Annotated[Float64, Stored("N", over=0)]
    #: a_g, sorted by domain name
    exponent_: Annotated[Float64, Stored("G", least=0, most=1)]

    #: upper end of the grid of powers
    MAX_POWER = 1.0
    #: number of nearest clips before rescaling among which the nearest after it is searched
    CANDIDATES = 32

    def __init__(
        self,
        neighbours: PositiveInt = 16,
        domain_wise: bool = True,
        space: SpaceName = "whitened",
        metric: Metric = "euclidean",
    ) -> None:
        self.neighbours = neighbours
        self.domain_wise = domain_wise
        self.space = space
        self.metric = metric

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, not {self.neighbours}")
        self._fit_space(bank_ND, domains_N)
        self.bank_ = self._space.apply(bank_ND)
        powers_A = np.linspace(0.0, self.MAX_POWER, 41)
        groups = self._groups(domains_N)
        # (A, N) scores per domain.
        scores_GAN = [self._scores_by_power(self.bank_[rows], powers_A) for rows in groups]
        spread_GA = np.array([scores_AN.var(axis=1) * scores_AN.shape[1] for scores_AN in scores_GAN])
        shared_power = float(powers_A[spread_GA.sum(axis=0).argmin()]) if len(bank_ND) >= MIN_CLIPS else 0.5
        self.exponent_ = np.empty(len(groups))
        log_weights_N = np.empty(len(bank_ND))
        for g, (rows, scores_AN, spread_A) in enumerate(zip(groups, scores_GAN, spread_GA, strict=True)):
            self.exponent_[g] = powers_A[spread_A.argmin()] if len(rows) >= MIN_CLIPS else shared_power
            distance_NK = neighbour_distances(self.bank_[rows], self.neighbours, self.metric)[0]
            log_r_N = np.log(floored(distance_NK.mean(axis=1))[0])
            bias = scores_AN[np.abs(powers_A - self.exponent_[g]).argmin()].mean()
            log_weights_N[rows] = -self.exponent_[g] * log_r_N - bias
        self.weights_ = np.exp(log_weights_N)

    def _groups(self, domains_N: NDArray[np.str_]) -> list[Ints]:
        """Row indices of each domain; domains of fewer than three clips are merged with the largest."""
        labels, counts = np.unique(domains_N, return_counts=True)
        if not self.domain_wise:
            return [np.arange(len(domains_N))]
        largest = labels[counts.argmax()]
        joined_N = np.where(np.isin(domains_N, labels[counts < 3]), largest, domains_N)
        return [np.flatnonzero(joined_N == label) for label in np.unique(joined_N)]

    def _scores_by_power(self, rows_ND: Float64, powers_A: Float64) -> Float64:
        """(A, N) log score without bias of each clip against the others, for each power."""
        count = len(rows_ND)
        if count < 3:
            return np.zeros((len(powers_A), count))
        kept = min(self.neighbours, count - 2)
        distance_NK, neighbour_NK = neighbour_distances(rows_ND, max(kept + 1, self.CANDIDATES), self.metric)
        sum_N = distance_NK[:, :kept].sum(axis=1)
        radius_N, typical = floored(sum_N / kept)
        d_NC, y_NC = distance_NK[:, : self.CANDIDATES], neighbour_NK[:, : self.CANDIDATES]
        # Where x is one of the K neighbours of y, the next neighbour replaces it.
        mutual_NC = (neighbour_NK[y_NC, :kept] == np.arange(count)[:, None, None]).any(axis=2)
        without_NC = (sum_N[y_NC] - d_NC + distance_NK[y_NC, kept]) / kept
        r_NC = np.maximum(np.where(mutual_NC, without_NC, radius_N[y_NC]), FLOOR * typical)
        log_d_NC, log_r_NC = np.log(np.maximum(d_NC, FLOOR * typical)), np.log(r_NC)
        return np.stack([(log_d_NC - power * log_r_NC).min(axis=1) for power in powers_A])

    def _score(self, queries_ND: Float64) -> Float64:
        return self._score_with_nearest(queries_ND)[0]

    def _score_with_nearest(self, queries_ND: Float64) -> tuple[Float64, Ints]:
        mapped_ND = self._space.apply(queries_ND)
        distance_N1, row_N1 = nearest(mapped_ND, self.bank_, 1, metric=self.metric, weights_M=self.weights_)
        return distance_N1[:, 0], row_N1[:, 0]

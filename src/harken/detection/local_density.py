"""Nearest-neighbour distance, normalised by a power of the local density of normal clips."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from harken.detection.base import Float64, Ints
from harken.detection.density import density_power, floored, mean_distance, neighbour_distances
from harken.detection.in_space import InSpace
from harken.detection.neighbours import Bank, Metric, nearest
from harken.detection.space import SpaceName


class LocalDensity(InSpace):
    """score(x) = min_y d(x, y) * (r / r(y))^a, with r(y) the mean distance from normal clip y to its K nearest.

    The K nearest are of other blocks (`fit`): clips that are alike because they are close in time are no density.

    a = 0 is 1-NN; a = 1 the local density normalisation of Wilkinghoff et al. (ICASSP 2025), which prevents false
    alarms throughout a sparse target domain. r is the median of r(y) and keeps the unit of a distance.

    neighbours: K. exponent: a, or `auto`: the power at which the score of a normal clip is independent of its local
    density, see `density_power`; estimated from training clips without labels. (`varmin` searches the power that
    minimises the variance of the scores after the minimum, per domain.) space: see `fit_space`.
    """

    name: ClassVar[str] = "local_density"

    bank_: Float64
    weights_: Float64
    exponent_: float

    def __init__(
        self,
        neighbours: PositiveInt = 16,
        exponent: float | Literal["auto"] = "auto",
        space: SpaceName = "whitened",
        metric: Metric = "euclidean",
    ) -> None:
        self.neighbours = neighbours
        self.exponent = exponent
        self.space = space
        self.metric = metric

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        self._fit_blocks(bank_ND, domains_N, np.arange(len(bank_ND)))

    def _fit_blocks(self, bank_ND: Float64, domains_N: NDArray[np.str_], blocks_N: Ints) -> None:
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, not {self.neighbours}")
        self.bank_ = bank_ND
        self._fit_space(bank_ND, domains_N)
        distance_NK, neighbour_NK = neighbour_distances(self._mapped_bank, self.neighbours, self.metric, blocks_N)
        radius_N, typical = floored(mean_distance(distance_NK))
        slope = density_power(distance_NK[:, 0], radius_N[neighbour_NK[:, 0]])
        self.exponent_ = slope if self.exponent == "auto" else float(self.exponent)
        self.weights_ = (typical / radius_N) ** self.exponent_

    def _rebuild(self) -> None:
        super()._rebuild()
        self._mapped_bank = Bank(self._space.apply(self.bank_), self.metric)

    def _score(self, queries_ND: Float64) -> Float64:
        return self._score_with_nearest(queries_ND)[0]

    def _score_with_nearest(self, queries_ND: Float64) -> tuple[Float64, Ints]:
        mapped_ND = self._space.apply(queries_ND)
        distance_N1, row_N1 = nearest(mapped_ND, self._mapped_bank, 1, weights_M=self.weights_)
        return distance_N1[:, 0], row_N1[:, 0]

"""Local outlier factor."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from harken.core.arrays import Stored
from harken.detection.base import AnomalyDetector, Float64, Ints
from harken.detection.density import floored, neighbour_distances
from harken.detection.neighbours import Bank, nearest
from harken.detection.space import standardisation


class LOF(AnomalyDetector):
    """Local outlier factor (Breunig et al. 2000) with respect to the training clips; Euclidean, standardised.

    score(x) = r(x) * mean_y 1 / r(y) over the K nearest normal clips y, with r(x) the mean over them of the
    reachability distance max(d(x, y), distance from y to its K-th nearest). Identical normal clips have r(y) = 0: r is
    at least `density.FLOOR` times the median of r(y).
    """

    name: ClassVar[str] = "lof"

    scale_: Annotated[Float64, Stored("D", over=0)]
    bank_: Annotated[Float64, Stored("N D")]

    def __init__(self, neighbours: PositiveInt = 16) -> None:
        self.neighbours = neighbours

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, not {self.neighbours}")
        self.mean_, self.scale_ = standardisation(bank_ND)
        self.bank_ = bank_ND
        self._rebuild()

    def _rebuild(self) -> None:
        self._scaled = Bank((self.bank_ - self.mean_) / self.scale_)
        distance_MK, neighbour_MK = neighbour_distances(self._scaled, self.neighbours, "euclidean")
        self._reach = distance_MK[:, -1]
        self._radius, _ = floored(self._mean_reachability(distance_MK, neighbour_MK))

    def _mean_reachability(self, distance_NK: Float64, neighbour_NK: Ints) -> Float64:
        return np.asarray(np.maximum(distance_NK, self._reach[neighbour_NK]).mean(axis=1))

    def _score(self, queries_ND: Float64) -> Float64:
        count = min(self.neighbours, len(self.bank_) - 1)
        distance_NK, neighbour_NK = nearest((queries_ND - self.mean_) / self.scale_, self._scaled, count)
        radius_N = np.maximum(self._mean_reachability(distance_NK, neighbour_NK), self._radius.min())
        return np.asarray(radius_N * (1.0 / self._radius[neighbour_NK]).mean(axis=1))

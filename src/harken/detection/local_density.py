"""Nearest neighbour, normalised by the local density of the normal clips to a chosen power."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from harken.detection.base import AnomalyDetector, Float64
from harken.detection.neighbours import Metric, nearest
from harken.detection.space import Space, SpaceName, fit_space


class LocalDensity(AnomalyDetector):
    """score(x) = min_y d(x, y) * (r / r(y))^a, with r(y) the mean distance from normal clip y to its K nearest.

    a = 0 is plain 1-NN; a = 1 the local density normalisation of Wilkinghoff et al. (ICASSP 2025), which judges
    a distance by how far apart normal clips lie around there, so that a sparse target domain is not all alarms.
    r is the median of r(y): it keeps the unit of a distance and no more.

    neighbours: K. exponent: a, or `auto`: the slope of log d on log r(y) over the training clips, each against its
    nearest other clip, within [0, 1]: the power at which a normal clip's score no longer follows the density
    around it. Nothing but training clips enters, and no labels. space: where d is measured, see `fit_space`.
    """

    name: ClassVar[str] = "local_density"

    bank_: Float64
    weights_: Float64
    exponent_: float
    scale_: Float64
    basis_: Float64
    gain_: Float64
    rest_: float

    #: density radii below this share of their median (duplicates) are raised to it
    FLOOR = 0.05
    #: `auto` needs this many clips to tell a slope; with fewer, the middle of its range is taken
    FEWEST = 20

    def __init__(
        self,
        neighbours: int = 16,
        exponent: float | Literal["auto"] = "auto",
        space: SpaceName = "whitened",
        metric: Metric = "euclidean",
    ) -> None:
        self.neighbours = neighbours
        self.exponent = exponent
        self.space = space
        self.metric = metric

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        if self.neighbours < 1:
            raise ValueError(f"{self.neighbours} neighbours are too few; at least one is needed")
        self.bank_ = bank_ND
        found = fit_space(bank_ND, domains_N, self.space)
        self.mean_, self.scale_ = found.mean_D, found.scale_D
        self.basis_, self.gain_, self.rest_ = found.basis_DR, found.gain_R, found.rest
        self._rebuild()
        count = min(self.neighbours, len(bank_ND) - 1)
        itself = np.arange(len(bank_ND))
        distance_NK, neighbour_NK = nearest(
            self._placed, self._placed, count, metric=self.metric, query_blocks_N=itself, bank_blocks_M=itself
        )
        radius_N = distance_NK.mean(axis=1)
        positive = radius_N[radius_N > 0]
        typical = float(np.median(positive)) if len(positive) else 1.0
        radius_N = np.maximum(radius_N, self.FLOOR * typical)
        slope = self._slope(distance_NK[:, 0], radius_N[neighbour_NK[:, 0]])
        self.exponent_ = slope if self.exponent == "auto" else float(self.exponent)
        self.weights_ = (typical / radius_N) ** self.exponent_

    def _rebuild(self) -> None:
        self._space = Space(self.mean_, self.scale_, self.basis_, self.gain_, float(self.rest_))
        self._placed = self._space.apply(self.bank_)

    def _slope(self, nearest_N: Float64, radius_N: Float64) -> float:
        """Least-squares slope of log nearest distance on log density radius there, within [0, 1]."""
        there = nearest_N > 0
        if there.sum() < self.FEWEST or np.ptp(radius_N[there]) == 0:
            return 0.5
        log_d, log_r = np.log(nearest_N[there]), np.log(radius_N[there])
        slope = np.mean((log_d - log_d.mean()) * (log_r - log_r.mean())) / log_r.var()
        return float(np.clip(slope, 0.0, 1.0))

    def _score(self, queries_ND: Float64) -> Float64:
        placed_ND = self._space.apply(queries_ND)
        return nearest(placed_ND, self._placed, 1, metric=self.metric, weights_M=self.weights_)[0][:, 0]

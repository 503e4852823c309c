"""One memory bank per frequency band."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from harken.core.arrays import Stored
from harken.detection.base import Float64, Ints
from harken.detection.density import floored, neighbour_distances
from harken.detection.in_space import InSpace
from harken.detection.neighbours import Metric, nearest
from harken.detection.space import SpaceName


class BEAM(InSpace):
    """Nearest normal clip per band of the embedding; the distances of the bands are combined.

        d_b(x) = min_y d(x_b, y_b) [/ r_b(y)],    b = 1 .. bands

        mean:  1/B sum_b d_b(x)    max:  max_b d_b(x)    dual:  z(mean) + z(max)

    where z standardises by the held-out scores of normal clips. A normal sound whose bands vary independently need not
    occur in the same combination in the training clips, and no loud band dominates the others (BEAM, arXiv
    2603.13749, which averages; `max` and `dual` also detect anomalies confined to one band).

    bands: number of equal, consecutive ranges of the D dimensions, as produced by the pooling `bands:...`; if it does
        not divide D, some are longer by one.
    neighbours: K of local density normalisation in each band, where r_b(y) is the mean distance from y_b to its K
        nearest; 0: none.
    space: see `fit_space`; `whitened` mixes bands that are correlated in normal clips.
    """

    name: ClassVar[str] = "beam"

    #: training clips mapped into the space, and (bands, clips) factors of distances
    bank_: Annotated[Float64, Stored("N D")]
    weights_: Annotated[Float64, Stored("B N", over=0)]
    #: mean and standard deviation of the views mean and max, for `dual`
    location_: Annotated[Float64, Stored("2")]
    spread_: Annotated[Float64, Stored("2", over=0)]

    def __init__(
        self,
        bands: PositiveInt = 8,
        view: Literal["mean", "max", "dual"] = "mean",
        neighbours: NonNegativeInt = 0,
        space: SpaceName = "standard",
        metric: Metric = "euclidean",
    ) -> None:
        self.bands = bands
        self.view = view
        self.neighbours = neighbours
        self.space = space
        self.metric = metric

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        if self.view not in ("mean", "max", "dual"):
            raise ValueError(f"unknown view {self.view!r}; choose mean, max or dual")
        if self.bands < 1 or self.neighbours < 0:
            raise ValueError("bands must be >= 1 and neighbours >= 0")
        self._fit_space(bank_ND, domains_N)
        self.bank_ = self._space.apply(bank_ND)
        self.weights_ = np.ones((len(self._band_slices()), len(bank_ND)))
        if self.neighbours:
            for weights_M, band in zip(self.weights_, self._band_slices(), strict=True):
                distance_MK = neighbour_distances(self.bank_[:, band], self.neighbours, self.metric)[0]
                weights_M[:] = 1.0 / floored(distance_MK.mean(axis=1))[0]
        self.location_, self.spread_ = np.zeros(2), np.ones(2)
        if self.view == "dual":
            views_NV = self._views(self.bank_, np.arange(len(bank_ND)))
            self.location_, spread_V = views_NV.mean(axis=0), views_NV.std(axis=0)
            self.spread_ = np.where(spread_V > 0, spread_V, 1.0)

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        if sizes["B"] != len(self._band_slices()):
            raise ValueError(f"weights of {sizes['B']} bands, not of {len(self._band_slices())}")

    def _band_slices(self) -> list[slice]:
        dimensions = len(self.mean_)
        count = min(self.bands, dimensions)
        edges = [dimensions * band // count for band in range(count + 1)]
        return [slice(start, stop) for start, stop in pairwise(edges)]

    def _views(self, mapped_ND: Float64, self_N: Ints | None) -> Float64:
        """(N, 2) mean and max over the bands. self_N: rows of the clips in the bank, which are excluded."""
        numbers_M = None if self_N is None else np.arange(len(self.bank_))
        columns = [
            nearest(
                mapped_ND[:, band], self.bank_[:, band], 1, metric=self.metric, weights_M=weights_M,
                query_blocks_N=self_N, bank_blocks_M=numbers_M,
            )[0][:, 0]
            for band, weights_M in zip(self._band_slices(), self.weights_, strict=True)
        ]  # fmt: skip
        # Bands last in memory: the sum of a row is then bitwise independent of the other rows.
        distance_NB = np.ascontiguousarray(np.stack(columns, axis=1))
        return np.stack([distance_NB.mean(axis=1), distance_NB.max(axis=1)], axis=1)

    def _score(self, queries_ND: Float64) -> Float64:
        views_NV = self._views(self._space.apply(queries_ND), None)
        if self.view != "dual":
            return views_NV[:, 0 if self.view == "mean" else 1]
        z_NV = (views_NV - self.location_) / self.spread_
        return np.asarray(z_NV[:, 0] + z_NV[:, 1])

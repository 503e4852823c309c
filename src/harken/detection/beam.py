"""A memory bank for each frequency band."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from harken.detection.base import Float64, Ints
from harken.detection.density import floored, neighbour_distances
from harken.detection.in_space import InSpace
from harken.detection.neighbours import Metric, nearest
from harken.detection.space import SpaceName


class BEAM(InSpace):
    """Each band of the embedding finds its own nearest normal clip; the bands' distances are joined.

        d_b(x) = min_y d(x_b, y_b) [/ r_b(y)],    b = 1 .. bands

        mean:  1/B sum_b d_b(x)    max:  max_b d_b(x)    dual:  z(mean) + z(max)

    where z standardises by the scores that normal clips get from the others. A normal sound whose bands vary
    independently need not have been heard in this very combination, and no loud band outvotes the others (BEAM,
    arXiv 2603.13749, which averages; `max` and `dual` also hear what is odd in one band alone).

    bands: equal, consecutive parts of the D dimensions, such as the pooling `bands:...` makes them; where they do not
        divide D, some are longer by one.
    neighbours: K of local density normalisation in each band, r_b(y) being the mean distance from y_b to its K nearest;
        0 for none.
    space: where d is measured, see `fit_space`; `whitened` mixes bands, as far as these go together in normal clips.
    """

    name: ClassVar[str] = "beam"

    #: clips as they lie in the space, and (bands, clips) factors of distances
    bank_: Float64
    weights_: Float64
    #: of mean and max over the bands, for `dual`
    location_: Float64
    spread_: Float64

    def __init__(
        self,
        bands: int = 8,
        view: Literal["mean", "max", "dual"] = "mean",
        neighbours: int = 0,
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
            raise ValueError(f"unknown view {self.view!r}; there are mean, max and dual")
        if self.bands < 1 or self.neighbours < 0:
            raise ValueError("bands >= 1 and neighbours >= 0")
        self._fit_space(bank_ND, domains_N)
        self.bank_ = self._space.apply(bank_ND)
        self.weights_ = np.ones((len(self._parts()), len(bank_ND)))
        if self.neighbours:
            for weights_M, part in zip(self.weights_, self._parts(), strict=True):
                distance_MK = neighbour_distances(self.bank_[:, part], self.neighbours, self.metric)[0]
                weights_M[:] = 1.0 / floored(distance_MK.mean(axis=1))[0]
        self.location_, self.spread_ = np.zeros(2), np.ones(2)
        if self.view == "dual":
            views_NV = self._views(self.bank_, np.arange(len(bank_ND)))
            self.location_, spread_V = views_NV.mean(axis=0), views_NV.std(axis=0)
            self.spread_ = np.where(spread_V > 0, spread_V, 1.0)

    def _parts(self) -> list[slice]:
        dimensions = len(self.mean_)
        count = min(self.bands, dimensions)
        edges = [dimensions * band // count for band in range(count + 1)]
        return [slice(start, stop) for start, stop in pairwise(edges)]

    def _views(self, placed_ND: Float64, itself_N: Ints | None) -> Float64:
        """(N, 2) mean and max over the bands; itself_N: numbers of the clips in the bank, which are passed over."""
        numbers_M = None if itself_N is None else np.arange(len(self.bank_))
        columns = [
            nearest(
                placed_ND[:, part], self.bank_[:, part], 1, metric=self.metric, weights_M=weights_M,
                query_blocks_N=itself_N, bank_blocks_M=numbers_M,
            )[0][:, 0]
            for part, weights_M in zip(self._parts(), self.weights_, strict=True)
        ]  # fmt: skip
        # Bands last in memory: a row's sum then has the same bits whatever rows it comes with.
        distance_NB = np.ascontiguousarray(np.stack(columns, axis=1))
        return np.stack([distance_NB.mean(axis=1), distance_NB.max(axis=1)], axis=1)

    def _score(self, queries_ND: Float64) -> Float64:
        views_NV = self._views(self._space.apply(queries_ND), None)
        if self.view != "dual":
            return views_NV[:, 0 if self.view == "mean" else 1]
        z_NV = (views_NV - self.location_) / self.spread_
        return np.asarray(z_NV[:, 0] + z_NV[:, 1])

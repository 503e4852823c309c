"""Nearest-neighbour distance, normalised by a power of the local density of normal clips."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from harken.core.arrays import Stored
from harken.detection.base import Float64, Ints, held_out_folds
from harken.detection.density import density_power, floored, mean_distance, neighbour_distances
from harken.detection.in_space import InSpace
from harken.detection.neighbours import Bank, Metric, nearest
from harken.detection.shared_search import CANDIDATES, SearchInFold, SharedSearch
from harken.detection.space import SpaceName

#: clips from which on folds share one neighbour search
_MANY = 1000


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

    bank_: Annotated[Float64, Stored("N D")]
    weights_: Annotated[Float64, Stored("N", over=0)]
    exponent_: Annotated[float, Stored("")]

    def __init__(
        self,
        neighbours: PositiveInt = 16,
        exponent: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | Literal["auto"] = "auto",
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
        if self._shares_search(len(bank_ND)):
            self._search = SharedSearch(self._space, self._mapped_bank, blocks_N)
            self._fit_density(self._search.distance_NC[:, : self.neighbours], self._search.row_NC[:, : self.neighbours])
        else:
            self._fit_density(*neighbour_distances(self._mapped_bank, self.neighbours, self.metric, blocks_N))

    def _shares_search(self, count: int) -> bool:
        many = count >= max(_MANY, 3 * self.dimensions) and self.neighbours <= CANDIDATES
        return many and self.metric == "euclidean"

    def _fit_density(self, distance_NK: Float64, neighbour_NK: Ints) -> None:
        radius_N, typical = floored(mean_distance(distance_NK))
        slope = density_power(distance_NK[:, 0], radius_N[neighbour_NK[:, 0]])
        self.exponent_ = slope if self.exponent == "auto" else float(self.exponent)
        self.weights_ = (typical / radius_N) ** self.exponent_

    def _held_out(self, bank_ND: Float64, domains_N: NDArray[np.str_], blocks_N: Ints) -> Float64:
        if not self._shares_search(len(bank_ND)):
            return super()._held_out(bank_ND, domains_N, blocks_N)
        # The same scores: folds differ little from all clips, and so do their spaces.
        search = self._search
        del self._search
        scores_N = np.empty(len(bank_ND))
        for held, kept in held_out_folds(blocks_N, domains_N):
            refit = type(self)(**self.get_params())
            refit.bank_ = bank_ND[kept]
            refit._fit_space(refit.bank_, domains_N[kept])
            fold = SearchInFold(search, refit._space, refit._mapped_bank, kept)
            refit._fit_density(*fold.neighbours(self.neighbours))
            scores_N[held] = fold.nearest(held, refit._space.apply(bank_ND[held]), refit.weights_)
        return scores_N

    def _rebuild(self) -> None:
        super()._rebuild()
        self._mapped_bank = Bank(self._space.apply(self.bank_), self.metric)

    def _score(self, queries_ND: Float64) -> Float64:
        return self._score_with_nearest(queries_ND)[0]

    def _score_with_nearest(self, queries_ND: Float64) -> tuple[Float64, Ints]:
        mapped_ND = self._space.apply(queries_ND)
        distance_N1, row_N1 = nearest(mapped_ND, self._mapped_bank, 1, weights_M=self.weights_)
        return distance_N1[:, 0], row_N1[:, 0]

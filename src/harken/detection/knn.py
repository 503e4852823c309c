"""k nearest neighbours, with one memory bank or one per domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from harken.core.arrays import Stored
from harken.detection.base import AnomalyDetector, Float64, Ints
from harken.detection.memory_bank import BankName, Oversampling, check_bank_size, is_training_set, memory_bank
from harken.detection.neighbours import Bank, Metric, nearest
from harken.detection.space import scaling


class KNN(AnomalyDetector):
    """Mean distance to the `neighbours` nearest normal clips.

    banks: `pooled`, or `separate`: one bank per domain; distances are standardised by the leave-one-out distances
        within the domain, and the smallest is taken. No report does so: THUEE takes the smaller of the two distances as
        they are (sec. 2.3), SJTU-AITHU that to any training clip (sec. 2.1), and for one neighbour both are `pooled`.
    space: `standard` scales each dimension to unit variance first, `raw` uses embeddings unchanged.
    bank, oversample: rows to compare with, see `memory_bank`. clusters: number of centres of the bank `kmeans`.
    seed: of SMOTE and k-means.
    """

    name: ClassVar[str] = "knn"

    scale_: Annotated[Float64, Stored("D", over=0)]
    #: rows of all banks, of which M; the bank of each, of K; mean and standard deviation of the distances within each
    bank_: Annotated[Float64, Stored("M D")]
    domain_: Annotated[Ints, Stored("M", "int64", below="K")]
    location_: Annotated[Float64, Stored("K")]
    spread_: Annotated[Float64, Stored("K", over=0)]

    def __init__(
        self,
        neighbours: PositiveInt = 1,
        metric: Metric = "euclidean",
        banks: Literal["pooled", "separate"] = "pooled",
        bank: BankName = "all",
        oversample: Oversampling | None = None,
        clusters: PositiveInt = 16,
        seed: NonNegativeInt = 0,
        space: Literal["standard", "raw"] = "standard",
    ) -> None:
        self.neighbours = neighbours
        self.metric = metric
        self.banks = banks
        self.bank = bank
        self.oversample = oversample
        self.clusters = clusters
        self.seed = seed
        self.space = space

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        if self.banks not in ("pooled", "separate"):
            raise ValueError(f"unknown banks {self.banks!r}; choose pooled or separate")
        self.bank_ = bank_ND
        self.mean_, self.scale_ = scaling(bank_ND, self.space)
        if not self._bank_is_training_set:
            scaled_MD, domains_N = memory_bank(
                (bank_ND - self.mean_) / self.scale_, domains_N, bank=self.bank, oversample=self.oversample,
                clusters=self.clusters, metric=self.metric, seed=self.seed,
            )  # fmt: skip
            self.bank_ = scaled_MD * self.scale_ + self.mean_
        self.domain_ = np.unique(domains_N, return_inverse=True)[1].astype(np.int64)
        if self.banks == "pooled":
            self.domain_ = np.zeros_like(self.domain_)
        count = int(self.domain_.max()) + 1
        self.location_, self.spread_ = np.zeros(count), np.ones(count)
        self._rebuild()
        if self.banks == "separate":
            self._standardise_banks()

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        check_bank_size(self.bank, self.oversample, sizes)
        if len(np.unique(self.domain_)) != sizes["K"]:
            raise ValueError("a bank without rows")

    @property
    def _bank_is_training_set(self) -> bool:
        return is_training_set(self.bank, self.oversample)

    def _standardise_banks(self) -> None:
        """Location and spread of the leave-one-out distances within each bank, or all banks if it is too small."""
        blocks = 2 * np.arange(len(self._scaled))
        distances_NK = self._distances(self._scaled, blocks, blocks)[0]
        within_N = distances_NK[np.arange(len(self.domain_)), self.domain_]
        finite_N = np.isfinite(within_N)
        for domain in range(len(self.location_)):
            distances = within_N[finite_N & (self.domain_ == domain)]
            if len(distances) < 3 or distances.std() == 0:
                distances = within_N[finite_N]
            if len(distances):
                self.location_[domain], self.spread_[domain] = distances.mean(), distances.std() or 1.0

    def _rebuild(self) -> None:
        self._scaled = (self.bank_ - self.mean_) / self.scale_
        domains = range(int(self.domain_.max()) + 1)
        self._banks = [Bank(self._scaled[self.domain_ == domain], self.metric) for domain in domains]

    def _distances(self, scaled_ND: Float64, blocks_N: Ints | None, bank_blocks_M: Ints | None) -> tuple[Float64, Ints]:
        """(N, domains) mean distance to the k nearest rows of each bank, and the row of the nearest one.

        Where all rows of a bank are excluded, the distance is inf and the row has no meaning.
        """
        columns, nearest_rows = [], []
        for domain in range(len(self.location_)):
            in_domain_M = self.domain_ == domain
            neighbour_NK, row_NK = nearest(
                scaled_ND,
                self._banks[domain],
                self.neighbours,
                query_blocks_N=blocks_N,
                bank_blocks_M=None if bank_blocks_M is None else bank_blocks_M[in_domain_M],
                block_reach=1,
            )
            finite_NK = np.isfinite(neighbour_NK)
            count_N = np.maximum(finite_NK.sum(axis=1), 1)
            mean_N = np.where(finite_NK, neighbour_NK, 0.0).sum(axis=1) / count_N
            columns.append(np.where(finite_NK.any(axis=1), mean_N, np.inf))
            nearest_rows.append(np.flatnonzero(in_domain_M)[row_NK[:, 0]])
        return np.stack(columns, axis=1), np.stack(nearest_rows, axis=1)

    def _held_out(self, bank_ND: Float64, domains_N: NDArray[np.str_], blocks_N: Ints) -> Float64:
        if not self._bank_is_training_set:
            return super()._held_out(bank_ND, domains_N, blocks_N)
        scores_N = self._standardised(self._distances(self._scaled, blocks_N, blocks_N)[0]).min(axis=1)
        if np.isfinite(scores_N).all():
            return scores_N
        # Some clip has no other far enough away in time: fall back to folds.
        return super()._held_out(bank_ND, domains_N, blocks_N)

    def _standardised(self, distances_NK: Float64) -> Float64:
        return (distances_NK - self.location_) / self.spread_

    def _score(self, queries_ND: Float64) -> Float64:
        return self._score_with_nearest(queries_ND)[0]

    def _score_with_nearest(self, queries_ND: Float64) -> tuple[Float64, Ints | None]:
        distances_NK, rows_NK = self._distances((queries_ND - self.mean_) / self.scale_, None, None)
        scores_NK = self._standardised(distances_NK)
        closest_N = scores_NK.argmin(axis=1)
        rows_N = rows_NK[np.arange(len(rows_NK)), closest_N] if self._bank_is_training_set else None
        return scores_NK.min(axis=1), rows_N

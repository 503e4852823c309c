"""k nearest neighbours, over one bank or one bank a domain."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from harken.detection.base import AnomalyDetector, Float64, Ints
from harken.detection.memory_bank import BankName, Oversampling, memory_bank
from harken.detection.neighbours import Metric, nearest
from harken.detection.space import scaling


class KNN(AnomalyDetector):
    """Mean distance to the `neighbours` nearest normal clips.

    banks: `pooled`, or `separate`: one bank a domain, each domain's distances standardised by its own
        leave-one-out distances, and the smallest taken (domain-wise 1-NN as in the SJTU-AITHU and THUEE systems).
    space: `standard` brings each dimension to unit variance first, `raw` leaves embeddings as they are.
    bank, oversample: the clips that are compared with, see `memory_bank`. clusters: centres of the bank `kmeans`.
    seed: of SMOTE and k-means.
    """

    name: ClassVar[str] = "knn"

    scale_: Float64
    bank_: Float64
    domain_: Ints
    location_: Float64
    spread_: Float64

    def __init__(
        self,
        neighbours: int = 1,
        metric: Metric = "euclidean",
        banks: Literal["pooled", "separate"] = "pooled",
        bank: BankName = "all",
        oversample: Oversampling | None = None,
        clusters: int = 16,
        seed: int = 0,
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
            raise ValueError(f"unknown banks {self.banks!r}; there are pooled and separate")
        self.bank_ = bank_ND
        self.mean_, self.scale_ = scaling(bank_ND, self.space)
        if not self._whole:
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

    @property
    def _whole(self) -> bool:
        """Whether the bank is the training clips, one for one, so that each can be left out exactly."""
        return self.bank == "all" and self.oversample is None

    def _standardise_banks(self) -> None:
        """Location and spread of each bank's own leave-one-out distances; of all where a bank is too small to tell."""
        itself = 2 * np.arange(len(self._scaled))
        distances_NK = self._distances(self._scaled, itself, itself)
        own_N = distances_NK[np.arange(len(self.domain_)), self.domain_]
        there_N = np.isfinite(own_N)
        for domain in range(len(self.location_)):
            own = own_N[there_N & (self.domain_ == domain)]
            if len(own) < 3 or own.std() == 0:
                own = own_N[there_N]
            if len(own):
                self.location_[domain], self.spread_[domain] = own.mean(), own.std() or 1.0

    def _rebuild(self) -> None:
        self._scaled = (self.bank_ - self.mean_) / self.scale_

    def _distances(self, scaled_ND: Float64, blocks_N: Ints | None, bank_blocks_M: Ints | None) -> Float64:
        """(N, domains) mean distance to the k nearest of each bank; inf where a bank has none to offer."""
        columns = []
        for domain in range(len(self.location_)):
            of_M = self.domain_ == domain
            found_NK, _ = nearest(
                scaled_ND,
                self._scaled[of_M],
                self.neighbours,
                metric=self.metric,
                query_blocks_N=blocks_N,
                bank_blocks_M=None if bank_blocks_M is None else bank_blocks_M[of_M],
                block_reach=1,
            )
            there_NK = np.isfinite(found_NK)
            counted_N = np.maximum(there_NK.sum(axis=1), 1)
            mean_N = np.where(there_NK, found_NK, 0.0).sum(axis=1) / counted_N
            columns.append(np.where(there_NK.any(axis=1), mean_N, np.inf))
        return np.stack(columns, axis=1)

    def _held_out(self, bank_ND: Float64, domains_N: NDArray[np.str_], blocks_N: Ints) -> Float64:
        if not self._whole:
            return super()._held_out(bank_ND, domains_N, blocks_N)
        scores_N = self._fused(self._distances(self._scaled, blocks_N, blocks_N))
        if np.isfinite(scores_N).all():
            return scores_N
        # Some clip has no other that is far enough in time: fall back on folds.
        return super()._held_out(bank_ND, domains_N, blocks_N)

    def _fused(self, distances_NK: Float64) -> Float64:
        return np.asarray(((distances_NK - self.location_) / self.spread_).min(axis=1))

    def _score(self, queries_ND: Float64) -> Float64:
        return self._fused(self._distances((queries_ND - self.mean_) / self.scale_, None, None))

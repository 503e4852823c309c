"""Local density normalisation as published, with its variants."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from harken.detection.base import Float64, Ints
from harken.detection.density import exit_sizes, floored, neighbour_distances
from harken.detection.in_space import InSpace
from harken.detection.memory_bank import BankName, Oversampling, is_source, memory_bank
from harken.detection.neighbours import Metric, nearest
from harken.detection.space import SpaceName


class LDN(InSpace):
    """Distance to the nearest normal clip, judged by how far apart normal clips lie around it.

    With r(y) the mean distance from row y of the bank to its K nearest others y_1 .. y_K:

        ratio:        score(x) = min_y d(x, y) / r(y)
        difference:   score(x) = min_y d(x, y) - r(y)

    Wilkinghoff et al., "Keeping the balance" (ICASSP 2025) and arXiv 2509.10951. Published systems have metric
    `cosine`, space `raw`, and K = 1 .. 16.

    neighbours: K, or `auto`: for each row where its neighbourhood leaves its cluster, at most `MOST` (`exit_sizes`).
    domain_wise: r(y) is taken within y's own domain; the banks are joined by the minimum. source_neighbours,
        target_neighbours: then the K of either (default: neighbours). With 16 and 9 this is the scoring of GenRep
        (Saengthong and Shinozaki, DCASE 2025), without its statistics of test clips.
    bank, oversample: the clips that are compared with, see `memory_bank`; clusters: centres of the bank `kmeans`.
        Centres and clips drawn by SMOTE are rows like others, and are neighbours of rows.
    space: where d is measured, see `fit_space`. seed: of SMOTE and k-means.
    """

    name: ClassVar[str] = "ldn"

    #: rows as they lie in the space, and the density radius of each
    bank_: Float64
    radius_: Float64

    #: the most neighbours that `auto` takes
    MOST = 16

    def __init__(
        self,
        neighbours: int | Literal["auto"] = 16,
        form: Literal["ratio", "difference"] = "ratio",
        domain_wise: bool = False,
        source_neighbours: int | None = None,
        target_neighbours: int | None = None,
        bank: BankName = "all",
        oversample: Oversampling | None = None,
        clusters: int = 16,
        space: SpaceName = "whitened",
        metric: Metric = "euclidean",
        seed: int = 0,
    ) -> None:
        self.neighbours = neighbours
        self.form = form
        self.domain_wise = domain_wise
        self.source_neighbours = source_neighbours
        self.target_neighbours = target_neighbours
        self.bank = bank
        self.oversample = oversample
        self.clusters = clusters
        self.space = space
        self.metric = metric
        self.seed = seed

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        self._check()
        self._fit_space(bank_ND, domains_N)
        source = str(domains_N[is_source(domains_N)][0])
        self.bank_, domains_M = memory_bank(
            self._space.apply(bank_ND), domains_N, bank=self.bank, oversample=self.oversample,
            clusters=self.clusters, metric=self.metric, seed=self.seed,
        )  # fmt: skip
        self.radius_ = floored(self._radii(domains_M, source))[0]

    def _check(self) -> None:
        if self.form not in ("ratio", "difference"):
            raise ValueError(f"unknown form {self.form!r}; there are ratio and difference")
        counts = (self.neighbours, self.source_neighbours, self.target_neighbours)
        if any(count is not None and count != "auto" and (isinstance(count, str) or count < 1) for count in counts):
            raise ValueError(f"neighbours are at least one, or auto, not {counts}")
        if not self.domain_wise and counts[1:] != (None, None):
            raise ValueError("source_neighbours and target_neighbours need domain_wise")

    def _radii(self, domains_M: NDArray[np.str_], source: str) -> Float64:
        """(M,) mean distance from each row of the bank to its neighbours."""
        if len(self.bank_) == 1:
            return np.ones(1)
        everywhere_M = self._mean_distance(np.arange(len(self.bank_)), self.neighbours)
        if not self.domain_wise:
            return everywhere_M
        radius_M = everywhere_M
        for label in np.unique(domains_M):
            own = np.flatnonzero(domains_M == label)
            # A domain of one row has no density of its own.
            if len(own) > 1:
                count = self.source_neighbours if label == source else self.target_neighbours
                radius_M[own] = self._mean_distance(own, self.neighbours if count is None else count)
        return radius_M

    def _mean_distance(self, rows_M: Ints, neighbours: int | Literal["auto"]) -> Float64:
        if neighbours != "auto":
            return np.asarray(neighbour_distances(self.bank_[rows_M], neighbours, self.metric)[0].mean(axis=1))
        distance_MK = neighbour_distances(self.bank_[rows_M], self.MOST + 1, self.metric)[0]
        sizes_M = exit_sizes(distance_MK, self.MOST)
        inside_MK = np.arange(distance_MK.shape[1]) < sizes_M[:, None]
        return np.where(inside_MK, distance_MK, 0.0).sum(axis=1) / sizes_M

    def _score(self, queries_ND: Float64) -> Float64:
        placed_ND = self._space.apply(queries_ND)
        if self.form == "ratio":
            return nearest(placed_ND, self.bank_, 1, metric=self.metric, weights_M=1.0 / self.radius_)[0][:, 0]
        return nearest(placed_ND, self.bank_, 1, metric=self.metric, offsets_M=-self.radius_)[0][:, 0]

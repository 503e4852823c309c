"""Local density normalisation as published, and variants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from harken.core.arrays import Stored
from harken.detection.base import Float64, Ints
from harken.detection.density import exit_sizes, floored, neighbour_distances
from harken.detection.in_space import InSpace
from harken.detection.memory_bank import (
    BankName,
    Oversampling,
    check_bank_size,
    is_source,
    is_training_set,
    memory_bank,
)
from harken.detection.neighbours import Metric, nearest
from harken.detection.space import SpaceName


class LDN(InSpace):
    """Distance to the nearest normal clip, normalised by the local density of normal clips.

    With r(y) the mean distance from row y of the bank to its K nearest other rows y_1 .. y_K:

        ratio:        score(x) = min_y d(x, y) / r(y)
        difference:   score(x) = min_y d(x, y) - r(y)

    Wilkinghoff et al., "Keeping the balance" (ICASSP 2025) and arXiv 2509.10951. Published systems use metric
    `cosine`, space `raw`, and K = 1 .. 16.

    neighbours: K, or `auto`: per row, up to the exit of its cluster, at most `MAX_NEIGHBOURS` (`exit_sizes`).
    domain_wise: r(y) is computed within the domain of y, followed by the minimum over all domains. source_neighbours,
        target_neighbours: K per domain (default: neighbours). With 16 and 9 this is the scoring of GenRep (Saengthong
        and Shinozaki, DCASE 2025), without its statistics of test clips.
    bank, oversample: rows to compare with, see `memory_bank`; clusters: number of centres of the bank `kmeans`.
        Centres and SMOTE samples count as rows and as neighbours.
    space: see `fit_space`. seed: of SMOTE and k-means.
    """

    name: ClassVar[str] = "ldn"

    #: rows mapped into the space, and their density radii
    bank_: Annotated[Float64, Stored("M D")]
    radius_: Annotated[Float64, Stored("M", over=0)]

    #: upper limit of neighbours for `auto`
    MAX_NEIGHBOURS = 16

    def __init__(
        self,
        neighbours: PositiveInt | Literal["auto"] = 16,
        form: Literal["ratio", "difference"] = "ratio",
        domain_wise: bool = False,
        source_neighbours: PositiveInt | Literal["auto"] | None = None,
        target_neighbours: PositiveInt | Literal["auto"] | None = None,
        bank: BankName = "all",
        oversample: Oversampling | None = None,
        clusters: PositiveInt = 16,
        space: SpaceName = "whitened",
        metric: Metric = "euclidean",
        seed: NonNegativeInt = 0,
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

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        check_bank_size(self.bank, self.oversample, sizes)

    def _check(self) -> None:
        if self.form not in ("ratio", "difference"):
            raise ValueError(f"unknown form {self.form!r}; choose ratio or difference")
        counts = (self.neighbours, self.source_neighbours, self.target_neighbours)
        if any(count is not None and count != "auto" and (isinstance(count, str) or count < 1) for count in counts):
            raise ValueError(f"neighbours must be at least 1, or auto, not {counts}")
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
            domain_rows = np.flatnonzero(domains_M == label)
            # A domain of one row has no density.
            if len(domain_rows) > 1:
                count = self.source_neighbours if label == source else self.target_neighbours
                radius_M[domain_rows] = self._mean_distance(domain_rows, self.neighbours if count is None else count)
        return radius_M

    def _mean_distance(self, rows_M: Ints, neighbours: int | Literal["auto"]) -> Float64:
        if neighbours != "auto":
            return np.asarray(neighbour_distances(self.bank_[rows_M], neighbours, self.metric)[0].mean(axis=1))
        distance_MK = neighbour_distances(self.bank_[rows_M], self.MAX_NEIGHBOURS + 1, self.metric)[0]
        sizes_M = exit_sizes(distance_MK, self.MAX_NEIGHBOURS)
        inside_MK = np.arange(distance_MK.shape[1]) < sizes_M[:, None]
        return np.where(inside_MK, distance_MK, 0.0).sum(axis=1) / sizes_M

    def _score(self, queries_ND: Float64) -> Float64:
        return self._score_with_nearest(queries_ND)[0]

    def _score_with_nearest(self, queries_ND: Float64) -> tuple[Float64, Ints | None]:
        mapped_ND = self._space.apply(queries_ND)
        if self.form == "ratio":
            distance_N1, row_N1 = nearest(mapped_ND, self.bank_, 1, metric=self.metric, weights_M=1.0 / self.radius_)
        else:
            distance_N1, row_N1 = nearest(mapped_ND, self.bank_, 1, metric=self.metric, offsets_M=-self.radius_)
        return distance_N1[:, 0], row_N1[:, 0] if is_training_set(self.bank, self.oversample) else None

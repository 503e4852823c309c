"""Neighbours of many rows in several similar spaces, from one search in one of them."""

from __future__ import annotations

import numpy as np

from harken.detection.density import neighbour_distances
from harken.detection.neighbours import Bank, Float64, Ints, nearest, nearest_among
from harken.detection.space import Space, least_stretch

#: nearest rows that are candidates in other spaces
CANDIDATES = 64
#: groups of queries, by the weights of the rows that they are compared with in full
_GROUPS = 4
#: covers rounding errors of distances and of the stretch between spaces
_MARGIN = 1e-9


class SharedSearch:
    """The nearest of N rows among each other in a space, from which those in similar spaces follow, exactly.

    If all distances in another space are at least c times those in this one (`least_stretch`), and a row's k-th
    candidate there is nearer than c times its farthest candidate here, then no row that is no candidate can be among
    the k nearest. Rows of which this does not hold are searched for in full.
    """

    def __init__(self, space: Space, rows: Bank, blocks_N: Ints) -> None:
        """rows: mapped to the space. blocks_N: rows of the same block are no neighbours."""
        self.space = space
        self.blocks_N = blocks_N
        self.distance_NC, self.row_NC = neighbour_distances(rows, CANDIDATES, "euclidean", blocks_N)


class SearchInFold:
    """Neighbours among the rows `kept`, in a space fitted to them."""

    def __init__(self, search: SharedSearch, space: Space, mapped: Bank, kept: Ints) -> None:
        """mapped: the rows `kept` in `space`."""
        self.search = search
        self.mapped = mapped
        self.kept = kept
        self.blocks_M = search.blocks_N[kept]
        self._stretch = least_stretch(search.space, space) * (1 - _MARGIN)
        self._number_N = np.full(len(search.blocks_N), -1, dtype=np.int64)
        self._number_N[kept] = np.arange(len(kept))

    def neighbours(self, k: int) -> tuple[Float64, Ints]:
        """`neighbour_distances` of the rows among each other."""
        if not self._narrows(k) or len(np.unique(self.blocks_M)) == 1:
            return neighbour_distances(self.mapped, k, "euclidean", self.blocks_M)
        k = min(k, len(self.kept) - 1)
        rows_MD = self.mapped.rows_MD
        candidate_MC, least_MC = self._candidates(self.kept)
        distance_MK, row_MK = nearest_among(rows_MD, self.mapped, candidate_MC, k, least_NC=least_MC)
        left = np.flatnonzero(~(distance_MK[:, -1] < least_MC[:, -1]))
        if len(left):
            distance_MK[left], row_MK[left] = nearest(
                rows_MD[left], self.mapped, k, query_blocks_N=self.blocks_M[left], bank_blocks_M=self.blocks_M
            )
        return distance_MK, row_MK

    def nearest(self, held: Ints, queries_QD: Float64, weights_M: Float64) -> Float64:
        """(Q,) least weighted distance of the rows `held`, mapped to the space, to the rows."""
        if not self._narrows(1):
            return nearest(queries_QD, self.mapped, 1, weights_M=weights_M)[0][:, 0]
        candidate_QC, least_QC = self._candidates(held)
        limit_Q = least_QC[:, -1]
        distance_Q = nearest_among(queries_QD, self.mapped, candidate_QC, 1, weights_M, least_QC)[0][:, 0]
        # A row that is no candidate can only be better if its weight is lower than this.
        with np.errstate(divide="ignore", invalid="ignore"):
            weight_Q = np.where(np.isfinite(limit_Q), distance_Q / limit_Q, 0.0)
        weight_Q[np.isnan(weight_Q)] = np.inf
        for group in np.array_split(np.argsort(weight_Q, kind="stable"), _GROUPS):
            light_M = weights_M <= weight_Q[group].max(initial=0.0)
            if light_M.any():
                light = self.mapped.subset(light_M)
                light_Q = nearest(queries_QD[group], light, 1, weights_M=weights_M[light_M])[0][:, 0]
                distance_Q[group] = np.minimum(distance_Q[group], light_Q)
        return distance_Q

    def _narrows(self, k: int) -> bool:
        """Whether candidates are likely to be enough for most rows."""
        distance_NC = self.search.distance_NC
        k = min(k, distance_NC.shape[1])
        return bool(np.mean(distance_NC[:, k - 1] < self._stretch * distance_NC[:, -1]) > 0.5)

    def _candidates(self, queries: Ints) -> tuple[Ints, Float64]:
        """Candidates (Q, C) of rows, numbered as in `kept` (-1: none), and what their distances are at least (Q, C);
        all others are farther than the last of these."""
        row_QC = self.search.row_NC[queries]
        candidate_QC = np.where(row_QC >= 0, self._number_N[row_QC], -1)
        return candidate_QC, self._stretch * self.search.distance_NC[queries]

"""Exact nearest neighbours whose distances do not depend on the other queries of the call."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Metric = Literal["euclidean", "cosine"]

# Candidates beyond k that the fast, rounded search passes to the exact one.
_SPARE = 8
# Groups of columns by whose lowest values candidates are found, and how many more of these than wanted are accepted.
_GROUP, _SURPLUS = 32, 3
# Temporary arrays of the search, and of the exact distances, which should stay in the cache. Where the bank is so large
# that this is a few queries, more are faster: the product reads the whole bank once for all queries of a block.
_BLOCK_BYTES = 16 * 2**20
_QUERIES, _MOST_BYTES = 256, 128 * 2**20
_EXACT_BYTES = 2**20
_FEW = 16


def unit_rows(rows_ND: Float64) -> Float64:
    """Rows scaled to unit length (zero rows stay zero)."""
    length_N1 = np.sqrt(np.sum(rows_ND**2, axis=1, keepdims=True))
    return rows_ND / np.where(length_N1 > 0, length_N1, 1.0)


class Bank:
    """Rows (M, D) to search among, and what each search needs of them, computed once.

    metric: `euclidean`, or `cosine` = 1 - cos(x, y). Raises ValueError for others.
    """

    def __init__(self, rows_MD: Float64, metric: Metric = "euclidean") -> None:
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"unknown metric {metric!r}; choose euclidean or cosine")
        self.metric: Metric = metric
        self.rows_MD = unit_rows(rows_MD) if metric == "cosine" else rows_MD

    @cached_property
    def _norm_M(self) -> Float64:
        return np.asarray(np.sum(self.rows_MD**2, axis=1))

    @cached_property
    def _centre_D(self) -> Float64:
        return np.asarray(self.rows_MD.mean(axis=0))

    @cached_property
    def _single(self) -> tuple[float, NDArray[np.float32]]:
        """Scale by which centred rows have at most unit length, and the rows (M, D + 2) of `lower_bounds`."""
        centred_MD = self.rows_MD - self._centre_D
        norm_M = np.sum(centred_MD**2, axis=1)
        largest = float(norm_M.max(initial=0.0))
        scale = 1.0 / np.sqrt(largest) if 1e-200 < largest < 1e200 else 0.0
        lowered_M1 = (norm_M * scale**2 * (1.0 - _rounding(self.rows_MD.shape[1])))[:, None]
        wide_MD = np.concatenate([centred_MD * scale, lowered_M1, np.ones((len(norm_M), 1))], axis=1)
        return scale, wide_MD.astype(np.float32)

    def subset(self, chosen_M: NDArray[np.bool_]) -> Bank:
        """The bank of some of the rows, which shares what is computed of all."""
        chosen = Bank(np.empty((0, self.rows_MD.shape[1])), self.metric)
        chosen.rows_MD = self.rows_MD[chosen_M]
        scale, wide_MD = self._single
        # Rounding errors are bounded for any centre and scale by which rows are at most of unit length.
        chosen.__dict__ |= {"_centre_D": self._centre_D, "_single": (scale, wide_MD[chosen_M])}
        return chosen

    def squared(self, query_BD: Float64) -> Float64:
        """(B, M) squared distances in float64, with cancellation errors."""
        return np.asarray(np.sum(query_BD**2, axis=1)[:, None] + self._norm_M - 2.0 * (query_BD @ self.rows_MD.T))

    def lower_bounds(self, query_BD: Float64) -> tuple[NDArray[np.float32], float] | None:
        """(B, M) float32, at most the squared distances times a factor, and that factor; None beyond float32.

        |x|^2 - 2 x y + |y|^2 is one product, of (-2 x, 1, |x|^2) and (y, |y|^2, 1). All its rounding errors are at most
        `_rounding(D)` times |x|^2 + |y|^2 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), which
        is subtracted.
        """
        scale, wide_MD = self._single
        centred_BD = (query_BD - self._centre_D) * scale
        norm_B1 = np.sum(centred_BD**2, axis=1, keepdims=True)
        if scale == 0 or norm_B1.max(initial=0.0) > 1e30:
            return None
        lowered_B1 = norm_B1 * (1.0 - _rounding(query_BD.shape[1])) - 1e-30
        wide_BD = np.concatenate([-2.0 * centred_BD, np.ones_like(norm_B1), lowered_B1], axis=1)
        return wide_BD.astype(np.float32) @ wide_MD.T, scale**2


def _rounding(dimensions: int) -> float:
    # Twice the terms of the product, each of at most |x|^2 + |y|^2, and some for what is rounded before it.
    return 2 * (dimensions + 32) * 2.0**-24


def nearest(
    queries_ND: Float64,
    bank_MD: Float64 | Bank,
    k: int,
    *,
    metric: Metric = "euclidean",
    query_blocks_N: Ints | None = None,
    bank_blocks_M: Ints | None = None,
    block_reach: int = 0,
    weights_M: Float64 | None = None,
    offsets_M: Float64 | None = None,
) -> tuple[Float64, Ints]:
    """Distances (N, k) ascending and bank rows (N, k) of the k nearest rows of `bank_MD`.

    metric: see `Bank`; of a bank that is given as an array.
    query_blocks_N, bank_blocks_M: rows whose block number is within `block_reach` of the query's are excluded
        (leave-one-block-out).
    weights_M: distances to row m are multiplied by weights_M[m] before they are compared.
    offsets_M: then offsets_M[m] is added to distances to row m before they are compared.
    Where fewer than k rows remain, missing neighbours have distance inf and row -1.
    Raises ValueError for an unknown metric or k < 1.

    Candidates come from one matrix product in float32; their distances are then computed pair by pair in float64, so
    that a pair always gives the same bits, without cancellation errors. Where another row might be nearer than the
    candidates, by the rounding errors of float32, candidates come from a product in float64.
    """
    bank = bank_MD if isinstance(bank_MD, Bank) else Bank(bank_MD, metric)
    if k < 1:
        raise ValueError(f"the number of neighbours must be at least 1, not {k}")
    if bank.metric == "cosine" and queries_ND is not bank.rows_MD:
        queries_ND = unit_rows(queries_ND)
    search = _Search(bank, k, weights_M, offsets_M)
    # A bank for few queries is not worth its preparation.
    first_double = bank is not bank_MD and len(queries_ND) < _FEW
    distances_NK = np.full((len(queries_ND), k), np.inf)
    neighbours_NK = np.full((len(queries_ND), k), -1, dtype=np.int64)
    row_bytes = 8 * len(bank.rows_MD)
    block = max(1, _BLOCK_BYTES // row_bytes, min(_QUERIES, _MOST_BYTES // row_bytes))
    for start in range(0, len(queries_ND), block):
        chunk = np.arange(start, min(start + block, len(queries_ND)))
        for double in (True,) if first_double else (False, True):
            excluded_BM = None
            if query_blocks_N is not None and bank_blocks_M is not None:
                excluded_BM = _within(query_blocks_N[chunk], bank_blocks_M, block_reach)
            certain_B, distance_BK, row_BK = search.run(queries_ND[chunk], excluded_BM, double)
            distances_NK[chunk, : distance_BK.shape[1]] = distance_BK
            neighbours_NK[chunk, : row_BK.shape[1]] = row_BK
            chunk = chunk[~certain_B]
            if not len(chunk):
                break
    return distances_NK, neighbours_NK


def nearest_among(
    queries_ND: Float64,
    bank: Bank,
    candidates_NC: Ints,
    k: int,
    weights_M: Float64 | None = None,
    least_NC: Float64 | None = None,
) -> tuple[Float64, Ints]:
    """`nearest` among the rows of `bank` that are candidates of each query, with the same bits; -1 is none.

    least_NC: what the Euclidean distances to the candidates are at least, without weights: it saves time.
    """
    search = _Search(bank, k, weights_M, None)
    distances_NK = np.full((len(queries_ND), k), np.inf)
    neighbours_NK = np.full((len(queries_ND), k), -1, dtype=np.int64)
    for start in range(0, len(queries_ND), _QUERIES):
        chunk = slice(start, start + _QUERIES)
        candidate_BC, least_BC = candidates_NC[chunk], None
        if least_NC is not None:
            least_BC = least_NC[chunk] ** 2
            if search.factors_M is not None:
                least_BC *= search.factors_M[candidate_BC]
        best_BK, row_BK = search.best(queries_ND[chunk], candidate_BC, candidate_BC >= 0, least_BC)
        distances_NK[chunk, : best_BK.shape[1]] = search.distances(best_BK)
        neighbours_NK[chunk, : row_BK.shape[1]] = row_BK
    return distances_NK, neighbours_NK


def _within(query_blocks_B: Ints, bank_blocks_M: Ints, reach: int) -> NDArray[np.bool_]:
    if reach == 0:
        return np.asarray(query_blocks_B[:, None] == bank_blocks_M)
    return np.asarray(np.abs(query_blocks_B[:, None] - bank_blocks_M) <= reach)


class _Search:
    """See `nearest`."""

    def __init__(self, bank: Bank, k: int, weights_M: Float64 | None, offsets_M: Float64 | None) -> None:
        self.bank = bank
        self.k = k
        # Squared distances are searched, except under offsets; cosine distance is half that of unit rows.
        self.factors_M = None if weights_M is None else weights_M ** (1 if bank.metric == "cosine" else 2)
        self.offsets_M = offsets_M
        self.kept = min(len(bank.rows_MD), k + _SPARE)

    def run(
        self, query_BD: Float64, excluded_BM: NDArray[np.bool_] | None, double: bool
    ) -> tuple[NDArray[np.bool_], Float64, Ints]:
        """Whether the neighbours of a query are certain, their distances (B, up to k) and rows."""
        rough_BM, limit_of_unit = self._rough(query_BD, double)
        if excluded_BM is not None:
            rough_BM[excluded_BM] = np.inf
        candidate_BC, limit_B = _lowest(rough_BM, self.kept)
        least_BC = np.take_along_axis(rough_BM, candidate_BC, axis=1).astype(np.float64)
        possible_BC = np.isfinite(least_BC) & (candidate_BC >= 0)
        if limit_of_unit is not None:
            least_BC /= limit_of_unit
        best_BK, row_BK = self.best(query_BD, candidate_BC, possible_BC, None if limit_of_unit is None else least_BC)
        certain_B = np.ones(len(query_BD), dtype=np.bool_)
        if limit_of_unit is not None:
            # All other rows are at least as far as the lower bound up to which rows are candidates.
            certain_B = (best_BK[:, -1] * limit_of_unit < limit_B) | ~np.isfinite(limit_B)
        return certain_B, self.distances(best_BK), row_BK

    def best(
        self,
        query_BD: Float64,
        candidate_BC: Ints,
        possible_BC: NDArray[np.bool_],
        least_BC: Float64 | None = None,
    ) -> tuple[Float64, Ints]:
        """Values (B, up to k) ascending of the best of the candidates that are possible, and their rows.

        least_BC: what the values of the candidates are at least.
        """
        if least_BC is None or candidate_BC.shape[1] <= self.k:
            value_BC = self._exact(query_BD, candidate_BC)
            value_BC[~possible_BC] = np.inf
        else:
            value_BC = self._some_exact(query_BD, candidate_BC, np.where(possible_BC, least_BC, np.inf))
        # Ties are ordered by row, so that neighbours are repeatable too.
        order_BK = np.lexsort((candidate_BC, value_BC), axis=1)[:, : self.k]
        best_BK = np.take_along_axis(value_BC, order_BK, axis=1)
        return best_BK, np.where(np.isfinite(best_BK), np.take_along_axis(candidate_BC, order_BK, axis=1), -1)

    def distances(self, value_BK: Float64) -> Float64:
        """Distances from values."""
        return value_BK if self.offsets_M is not None else _distance(value_BK, self.bank.metric)

    def _rough(self, query_BD: Float64, double: bool) -> tuple[NDArray[Any], float | None]:
        """(B, M) values by which candidates are chosen; if they are lower bounds, the factor that they contain."""
        bounds = None if double or self.offsets_M is not None else self.bank.lower_bounds(query_BD)
        rough_BM: NDArray[Any] = self.bank.squared(query_BD) if bounds is None else bounds[0]
        if self.factors_M is not None:
            rough_BM *= self.factors_M.astype(rough_BM.dtype)
        if self.offsets_M is not None:
            rough_BM = _distance(rough_BM, self.bank.metric) + self.offsets_M
        return rough_BM, None if bounds is None else bounds[1]

    def _some_exact(self, query_BD: Float64, candidate_BC: Ints, least_BC: Float64) -> Float64:
        """(B, C) values of the candidates that may be among the k best, inf of others. least_BC: inf where none is."""
        value_BC = np.full(candidate_BC.shape, np.inf)
        first_BK = np.argpartition(least_BC, self.k - 1, axis=1)[:, : self.k]
        first_value_BK = self._exact(query_BD, np.take_along_axis(candidate_BC, first_BK, axis=1))
        first_value_BK[np.isinf(np.take_along_axis(least_BC, first_BK, axis=1))] = np.inf
        np.put_along_axis(value_BC, first_BK, first_value_BK, axis=1)
        further_BC = (least_BC <= first_value_BK.max(axis=1, keepdims=True)) & np.isfinite(least_BC)
        np.put_along_axis(further_BC, first_BK, False, axis=1)
        row_P, column_P = np.nonzero(further_BC)
        value_BC[row_P, column_P] = self._exact(query_BD[row_P], candidate_BC[row_P, column_P][:, None])[:, 0]
        return value_BC

    def _exact(self, query_BD: Float64, candidate_BC: Ints) -> Float64:
        """(B, C) values of the candidates, pair by pair in float64."""
        value_BC = np.empty(candidate_BC.shape)
        step = max(1, _EXACT_BYTES // (8 * candidate_BC.shape[1] * query_BD.shape[1]))
        for start in range(0, len(query_BD), step):
            rows = slice(start, start + step)
            difference_BCD = self.bank.rows_MD[candidate_BC[rows]]
            np.subtract(query_BD[rows, None, :], difference_BCD, out=difference_BCD)
            np.multiply(difference_BCD, difference_BCD, out=difference_BCD)
            value_BC[rows] = difference_BCD.sum(axis=2)
        if self.factors_M is not None:
            value_BC *= self.factors_M[candidate_BC]
        if self.offsets_M is not None:
            value_BC = _distance(value_BC, self.bank.metric) + self.offsets_M[candidate_BC]
        return value_BC


def _distance(squared: Float64, metric: Metric) -> Float64:
    """Distances from squared distances (of unit rows for cosine); rounding may make some negative."""
    return squared / 2.0 if metric == "cosine" else np.sqrt(np.maximum(squared, 0.0))


def _lowest(rough_BM: NDArray[Any], count: int) -> tuple[Ints, Float64]:
    """Columns (B, C) of the `count` lowest values or some more of each row (-1: none), and limits (B,).

    All other values of a row are at least its limit, inf where there are no others.

    The `count`-th lowest of the minima of groups of columns is no lower than the `count`-th lowest value: columns up to
    it are candidates, at a tenth of the time of a partition of the row.
    """
    rows, columns = rough_BM.shape
    if count >= columns:
        return np.broadcast_to(np.arange(columns), rough_BM.shape), np.full(rows, np.inf)
    groups = columns // _GROUP
    if groups > 4 * count:
        minimum_BG = rough_BM[:, : groups * _GROUP].reshape(rows, _GROUP, groups).min(axis=1)
        limit_B = np.partition(minimum_BG, count - 1, axis=1)[:, count - 1]
        row_P, column_P = np.divmod(np.flatnonzero(rough_BM <= limit_B[:, None]), columns)
        found_B = np.bincount(row_P, minlength=rows)
        if found_B.max(initial=0) <= _SURPLUS * count:
            candidate_BC = np.full((rows, int(found_B.max())), -1, dtype=np.int64)
            candidate_BC[row_P, np.arange(len(row_P)) - np.repeat(np.cumsum(found_B) - found_B, found_B)] = column_P
            return candidate_BC, limit_B.astype(np.float64)
    candidate_BC = np.argpartition(rough_BM, count - 1, axis=1)[:, :count]
    return candidate_BC, np.take_along_axis(rough_BM, candidate_BC, axis=1).max(axis=1).astype(np.float64)

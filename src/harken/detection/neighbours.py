"""Exact nearest neighbours whose distances do not depend on the other queries of the call."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Metric = Literal["euclidean", "cosine"]

# Candidates beyond k that the fast, rounded search passes to the exact one.
_SPARE = 8
_BLOCK_BYTES = 64 * 2**20


def unit_rows(rows_ND: Float64) -> Float64:
    """Rows scaled to unit length (zero rows stay zero)."""
    length_N1 = np.sqrt(np.sum(rows_ND**2, axis=1, keepdims=True))
    return rows_ND / np.where(length_N1 > 0, length_N1, 1.0)


def nearest(
    queries_ND: Float64,
    bank_MD: Float64,
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

    metric: `euclidean`, or `cosine` = 1 - cos(x, y).
    query_blocks_N, bank_blocks_M: rows whose block number is within `block_reach` of the query's are excluded
        (leave-one-block-out).
    weights_M: distances to row m are multiplied by weights_M[m] before they are compared.
    offsets_M: then offsets_M[m] is added to distances to row m before they are compared.
    Where fewer than k rows remain, missing neighbours have distance inf and row -1.
    Raises ValueError for an unknown metric or k < 1.

    Candidates come from one matrix product; their distances are then computed pair by pair in float64, so
    that a pair always gives the same bits, without cancellation errors.
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"unknown metric {metric!r}; choose euclidean or cosine")
    if k < 1:
        raise ValueError(f"the number of neighbours must be at least 1, not {k}")
    if metric == "cosine":
        queries_ND, bank_MD = unit_rows(queries_ND), unit_rows(bank_MD)
    rows, dimensions = bank_MD.shape
    kept = min(rows, k + _SPARE)
    block = max(1, _BLOCK_BYTES // (8 * max(rows, kept * dimensions)))
    distances_NK = np.full((len(queries_ND), k), np.inf)
    neighbours_NK = np.full((len(queries_ND), k), -1, dtype=np.int64)
    # Squared distances are searched, except under offsets; cosine distance is half the squared distance of unit rows.
    power = 1 if metric == "cosine" else 2
    bank_norm_M = np.sum(bank_MD**2, axis=1)
    for start in range(0, len(queries_ND), block):
        chunk = slice(start, start + block)
        query_BD = queries_ND[chunk]
        rough_BM = np.sum(query_BD**2, axis=1)[:, None] + bank_norm_M - 2.0 * (query_BD @ bank_MD.T)
        if weights_M is not None:
            rough_BM *= weights_M**power
        if offsets_M is not None:
            rough_BM = _distance(rough_BM, metric) + offsets_M
        if query_blocks_N is not None and bank_blocks_M is not None:
            apart_BM = np.abs(query_blocks_N[chunk, None] - bank_blocks_M[None, :])
            rough_BM[apart_BM <= block_reach] = np.inf
        candidate_BC = (
            np.argpartition(rough_BM, kept - 1, axis=1)[:, :kept]
            if kept < rows
            else (np.broadcast_to(np.arange(rows), rough_BM.shape))
        )
        difference_BCD = query_BD[:, None, :] - bank_MD[candidate_BC]
        value_BC = np.sum(difference_BCD * difference_BCD, axis=2)
        if weights_M is not None:
            value_BC *= weights_M[candidate_BC] ** power
        if offsets_M is not None:
            value_BC = _distance(value_BC, metric) + offsets_M[candidate_BC]
        value_BC[~np.isfinite(np.take_along_axis(rough_BM, candidate_BC, axis=1))] = np.inf
        # Ties are ordered by row, so that neighbours are repeatable too.
        order_BK = np.lexsort((candidate_BC, value_BC), axis=1)[:, :k]
        best_BK = np.take_along_axis(value_BC, order_BK, axis=1)
        width = best_BK.shape[1]
        distances_NK[chunk, :width] = best_BK if offsets_M is not None else _distance(best_BK, metric)
        rows_BK = np.take_along_axis(candidate_BC, order_BK, axis=1)
        neighbours_NK[chunk, :width] = np.where(np.isfinite(best_BK), rows_BK, -1)
    return distances_NK, neighbours_NK


def _distance(squared: Float64, metric: Metric) -> Float64:
    """Distances from squared distances (of unit rows for cosine); rounding may make some negative."""
    return squared / 2.0 if metric == "cosine" else np.sqrt(np.maximum(squared, 0.0))

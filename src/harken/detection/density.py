"""Local density of normal clips, by which distances are normalised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harken.detection.neighbours import Bank, Metric, nearest

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]

#: lower bound of density radii (duplicates), relative to their median
FLOOR = 0.05
#: minimum number of clips to estimate a power of the density
MIN_CLIPS = 20
#: a gap of this many times the median gap is the end of a cluster; for exponential gaps, 1 of 2^EXIT_RATIO by chance
EXIT_RATIO = 10.0


def neighbour_distances(
    rows_MD: Float64 | Bank, count: int, metric: Metric, blocks_M: Ints | None = None
) -> tuple[Float64, Ints]:
    """(M, K) distances and row indices of the K = min(count, M - 1) nearest other rows of each row.

    blocks_M: rows of the same block are no neighbours, unless all rows are of one. Where other blocks have fewer than K
    rows, missing neighbours have distance inf and row -1.
    """
    bank = rows_MD if isinstance(rows_MD, Bank) else Bank(rows_MD, metric)
    rows = len(bank.rows_MD)
    excluded_M = np.arange(rows) if blocks_M is None or len(np.unique(blocks_M)) == 1 else blocks_M
    return nearest(bank.rows_MD, bank, min(count, rows - 1), query_blocks_N=excluded_M, bank_blocks_M=excluded_M)


def mean_distance(distance_MK: Float64) -> Float64:
    """(M,) mean of the finite distances of each row, of which there is at least one."""
    finite_MK = np.isfinite(distance_MK)
    return np.asarray(np.where(finite_MK, distance_MK, 0.0).sum(axis=1) / finite_MK.sum(axis=1))


def floored(radius_M: Float64) -> tuple[Float64, float]:
    """(M,) radii raised to at least `FLOOR` x their median, and that median (1 where all are zero)."""
    positive = radius_M[radius_M > 0]
    typical = float(np.median(positive)) if len(positive) else 1.0
    return np.maximum(radius_M, FLOOR * typical), typical


def density_power(nearest_N: Float64, radius_N: Float64) -> float:
    """Least-squares slope of log nearest distance on log density radius there, within [0, 1].

    Over normal clips, each with its nearest other clip: the power of the radius by which distances must be divided to
    be independent of the density. 0.5 for fewer than `MIN_CLIPS` clips.
    """
    positive = nearest_N > 0
    if positive.sum() < MIN_CLIPS or np.ptp(radius_N[positive]) == 0:
        return 0.5
    log_d, log_r = np.log(nearest_N[positive]), np.log(radius_N[positive])
    slope = np.mean((log_d - log_d.mean()) * (log_r - log_r.mean())) / log_r.var()
    return float(np.clip(slope, 0.0, 1.0))


def exit_sizes(distance_MK: Float64, most: int) -> Ints:
    """(M,) number of neighbours of a row before its neighbourhood leaves its cluster, 1 .. most.

    Cluster exits (Wilkinghoff et al., "Mind the gap", arXiv 2602.18777) are discontinuities in the ascending distances
    d_1 <= d_2 <= ... from a row to its neighbours. Here: the gap log d_{k+1} - log d_k, k <= most, is divided by the
    median of the k-th gap over all rows; the largest ratio is an exit if it exceeds `EXIT_RATIO`, and K = k. A row
    without an exit has K = most. (The published threshold is a percentile of gaps, which finds exits even with a
    single cluster.)

    distance_MK: ascending distances to most + 1 neighbours, or to all if there are fewer.
    """
    sizes_M = np.full(len(distance_MK), min(most, distance_MK.shape[1]), dtype=np.int64)
    if distance_MK.shape[1] < 2:
        return sizes_M
    floor = FLOOR * floored(distance_MK.mean(axis=1))[1]
    gap_MK = np.diff(np.log(np.maximum(distance_MK[:, : most + 1], floor)), axis=1)
    median_K = np.median(gap_MK, axis=0)
    # Where most gaps are zero (duplicates), any other would be infinitely large.
    ratio_MK = gap_MK / np.where(median_K > 0, median_K, np.inf)
    largest_M = ratio_MK.argmax(axis=1)
    exits_M = ratio_MK[np.arange(len(ratio_MK)), largest_M] > EXIT_RATIO
    return np.where(exits_M, largest_M + 1, sizes_M)

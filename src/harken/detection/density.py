"""How far apart normal clips lie around each of them: the local density by which distances are judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harken.detection.neighbours import Metric, nearest

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]

#: density radii below this share of their median (duplicates) are raised to it
FLOOR = 0.05
#: a power of the density needs this many clips
FEWEST = 20
#: a gap this many times the usual one is the end of a cluster; by chance, if gaps are exponential, one of 2^EXIT is
EXIT = 10.0


def neighbour_distances(rows_MD: Float64, count: int, metric: Metric) -> tuple[Float64, Ints]:
    """(M, K) distances and row numbers of the K = min(count, M - 1) nearest other rows of each."""
    itself = np.arange(len(rows_MD))
    count = min(count, len(rows_MD) - 1)
    return nearest(rows_MD, rows_MD, count, metric=metric, query_blocks_N=itself, bank_blocks_M=itself)


def floored(radius_M: Float64) -> tuple[Float64, float]:
    """Radii with those of duplicates raised to `FLOOR` of their median, and that median (1 where all are zero)."""
    positive = radius_M[radius_M > 0]
    typical = float(np.median(positive)) if len(positive) else 1.0
    return np.maximum(radius_M, FLOOR * typical), typical


def density_power(nearest_N: Float64, radius_N: Float64) -> float:
    """Least-squares slope of log nearest distance on log density radius there, within [0, 1].

    Over normal clips, each against its nearest other: the power of the radius by which distances are to be divided,
    so that they no longer follow the density. The middle of the range for fewer than `FEWEST` clips.
    """
    there = nearest_N > 0
    if there.sum() < FEWEST or np.ptp(radius_N[there]) == 0:
        return 0.5
    log_d, log_r = np.log(nearest_N[there]), np.log(radius_N[there])
    slope = np.mean((log_d - log_d.mean()) * (log_r - log_r.mean())) / log_r.var()
    return float(np.clip(slope, 0.0, 1.0))


def exit_sizes(distance_MK: Float64, most: int) -> Ints:
    """(M,) number of neighbours before a row's neighbourhood leaves its cluster, 1 .. most.

    Cluster exits (Wilkinghoff et al., "Mind the gap", arXiv 2602.18777) are discontinuities in the ascending distances
    d_1 <= d_2 <= ... from a row to its neighbours. Here: the gap log d_{k+1} - log d_k, k <= most, is compared with the
    median of the k-th gap over all rows; where this ratio is largest it is an exit if it is more than `EXIT`, and
    K = k. A row without an exit has K = most. (The published threshold is a percentile of gaps, which finds exits
    also where there is only one cluster.)

    distance_MK: ascending, to most + 1 neighbours, or to as many as there are.
    """
    sizes_M = np.full(len(distance_MK), min(most, distance_MK.shape[1]), dtype=np.int64)
    if distance_MK.shape[1] < 2:
        return sizes_M
    floor = FLOOR * floored(distance_MK.mean(axis=1))[1]
    gap_MK = np.diff(np.log(np.maximum(distance_MK[:, : most + 1], floor)), axis=1)
    usual_K = np.median(gap_MK, axis=0)
    # Where most gaps are none (duplicates), any other would be infinitely large.
    ratio_MK = gap_MK / np.where(usual_K > 0, usual_K, np.inf)
    at_M = ratio_MK.argmax(axis=1)
    exits_M = ratio_MK[np.arange(len(ratio_MK)), at_M] > EXIT
    return np.where(exits_M, at_M + 1, sizes_M)

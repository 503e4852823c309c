"""Sums over groups of neighbouring rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: rows of a group that `np.add.reduceat` adds one after the other; more are added in pairs
_SMALL = 8


def group_sums(values_ND: NDArray[np.float64], edges_E: NDArray[np.int_]) -> NDArray[np.float64]:
    """(N, D) -> (E - 1, D): sums of the rows from each of the ascending edges to the next one.

    The bits are those of `np.add.reduceat(values_ND, edges_E[:-1], axis=0)`, which takes several times as long for
    groups of a few rows: to the first row it adds the sum of the others.
    """
    starts_K, counts_K = edges_E[:-1], np.diff(edges_E)
    fewest, most = int(counts_K.min()), int(counts_K.max())
    if fewest < 2 or most > _SMALL:
        return np.asarray(np.add.reduceat(values_ND, starts_K, axis=0))
    sum_KD = values_ND.take(starts_K + 1, axis=0)
    for place in range(2, fewest):
        sum_KD += values_ND.take(starts_K + place, axis=0)
    for place in range(fewest, most):
        longer = np.flatnonzero(counts_K > place)
        sum_KD[longer] += values_ND.take(starts_K[longer] + place, axis=0)
    sum_KD += values_ND.take(starts_K, axis=0)
    return sum_KD

"""How far apart in time two recordings must be before they may vouch for each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.detection.neighbours import nearest
from harken.detection.space import standardisation


@dataclass(frozen=True)
class Blocks:
    """length: recordings a block, 1 where order carries nothing. drifting: alike even at the longest that was tried."""

    length: int
    drifting: bool


def find_blocks(embeddings_ND: NDArray[np.floating]) -> Blocks:
    """Block length of recordings given in the order in which they were made.

    Correlation in time fakes who the nearest neighbour is. With all recordings at lag <= L passed over (L = 0, 1, 3, 7,
    ...), those are counted whose nearest neighbour lies in the next 2 L + 1 lags; when that is no more than chance and
    three standard deviations, L + 1 is long enough. At most a tenth of the recordings: beyond that they drift, and no
    block is long enough.
    """
    rows_ND = np.asarray(embeddings_ND, dtype=np.float64)
    mean_D, scale_D = standardisation(rows_ND)
    z_ND = (rows_ND - mean_D) / scale_D
    count = len(z_ND)
    place_N = np.arange(count)
    passed = 0
    while 2 * passed + 1 <= count // 10:
        width = 2 * passed + 1
        neighbour_N = nearest(z_ND, z_ND, 1, query_blocks_N=place_N, bank_blocks_M=place_N, block_reach=passed)[1][:, 0]
        near = int(((neighbour_N >= 0) & (np.abs(neighbour_N - place_N) <= passed + width)).sum())
        allowed_N = count - _within(place_N, passed, count)
        window_N = _within(place_N, passed + width, count) - _within(place_N, passed, count)
        chance_N = window_N / allowed_N
        if near <= chance_N.sum() + 3 * np.sqrt((chance_N * (1 - chance_N)).sum()):
            return Blocks(passed + 1, False)
        passed = width
    return Blocks(max(1, count // 10), count >= 10)


def _within(place_N: NDArray[np.int64], lag: int, count: int) -> NDArray[np.int64]:
    """Number of recordings, itself included, at most `lag` away from each."""
    return np.minimum(place_N + lag, count - 1) - np.maximum(place_N - lag, 0) + 1

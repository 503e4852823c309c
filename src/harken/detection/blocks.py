"""Block length beyond which recordings are independent in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.detection.neighbours import nearest
from harken.detection.space import standardisation


@dataclass(frozen=True)
class Blocks:
    """length: recordings per block, 1 without correlation in time. drifting: correlated even at the longest length."""

    length: int
    drifting: bool


def find_blocks(embeddings_ND: NDArray[np.floating]) -> Blocks:
    """Block length of recordings (N, D) given in chronological order.

    Correlation in time biases the nearest neighbour. With all recordings at lag <= L excluded (L = 0, 1, 3, 7, ...),
    those are counted whose nearest neighbour lies in the next 2 L + 1 lags; when the count does not exceed chance by
    three standard deviations, L + 1 is long enough. The length is at most a tenth of the recordings: beyond that they
    drift, and no block is long enough.
    """
    rows_ND = np.asarray(embeddings_ND, dtype=np.float64)
    mean_D, scale_D = standardisation(rows_ND)
    z_ND = (rows_ND - mean_D) / scale_D
    count = len(z_ND)
    position_N = np.arange(count)
    excluded = 0
    while 2 * excluded + 1 <= count // 10:
        width = 2 * excluded + 1
        neighbour_N = nearest(z_ND, z_ND, 1, query_blocks_N=position_N, bank_blocks_M=position_N, block_reach=excluded)[
            1
        ][:, 0]
        near = int(((neighbour_N >= 0) & (np.abs(neighbour_N - position_N) <= excluded + width)).sum())
        allowed_N = count - _within(position_N, excluded, count)
        window_N = _within(position_N, excluded + width, count) - _within(position_N, excluded, count)
        chance_N = window_N / allowed_N
        if near <= chance_N.sum() + 3 * np.sqrt((chance_N * (1 - chance_N)).sum()):
            return Blocks(excluded + 1, False)
        excluded = width
    return Blocks(max(1, count // 10), count >= 10)


def _within(position_N: NDArray[np.int64], lag: int, count: int) -> NDArray[np.int64]:
    """Number of recordings at most `lag` away from each, itself included."""
    return np.minimum(position_N + lag, count - 1) - np.maximum(position_N - lag, 0) + 1

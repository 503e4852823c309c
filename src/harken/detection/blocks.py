"""Block length beyond which recordings are independent in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.detection.neighbours import nearest
from harken.detection.space import standardisation

Ints = NDArray[np.int64]

#: standard deviations above chance at which neighbours in time are too often alike
SIGNIFICANT = 3.0


@dataclass(frozen=True)
class Blocks:
    """length: recordings per block, 1 without correlation in time. drifting: correlated even at the longest length."""

    length: int
    drifting: bool


def find_blocks(
    embeddings_ND: NDArray[np.floating],
    sequences_N: NDArray[Any] | None = None,
    states_N: NDArray[Any] | None = None,
) -> Blocks:
    """Block length of recordings (N, D), each sequence of them in chronological order.

    sequences_N: label of the sequence of each, between which nothing is known of time (None: a single one). states_N:
    operating state of each; recordings of one state are compared and counted, since those of other states in between
    say nothing (None: a single one).

    Correlation in time biases the nearest neighbour. With all recordings at lag <= L excluded (L = 0, 1, 3, 7, ...),
    those are counted whose nearest neighbour lies in the next 2 L + 1 lags; when the count does not exceed chance by
    `SIGNIFICANT` standard deviations, L + 1 is long enough. The length is at most a tenth of the recordings: beyond
    that they drift, and no block is long enough.
    """
    rows_ND = np.asarray(embeddings_ND, dtype=np.float64)
    mean_D, scale_D = standardisation(rows_ND)
    z_ND = (rows_ND - mean_D) / scale_D
    count = len(z_ND)
    places = [_Places.of(members, sequences_N) for members in _members(count, states_N)]
    excluded = 0
    while excluded + 1 <= count // 10:
        width = 2 * excluded + 1
        near, expected, variance = np.sum([place.near(z_ND, excluded, width) for place in places], axis=0)
        if near <= expected + SIGNIFICANT * np.sqrt(variance):
            return Blocks(excluded + 1, False)
        excluded = width
    return Blocks(max(1, count // 10), count >= 10)


def block_numbers(
    length: int, count: int, sequences_N: NDArray[Any] | None = None, states_N: NDArray[Any] | None = None
) -> Ints:
    """(count,) block of each recording for `AnomalyDetector.fit`: numbers of neighbours in time are consecutive.

    Blocks lie within one sequence and state; those of different ones are not adjacent. They are shorter in small
    states, so that most of a state is left to compare each of its blocks with. Arguments: see `find_blocks`.
    """
    block_N = np.empty(count, dtype=np.int64)
    first = 0
    for members in _members(count, states_N):
        of_state = max(1, min(length, len(members) // 10))
        for rows in _Places.of(members, sequences_N).runs:
            block_N[rows] = first + np.arange(len(rows)) // of_state
            first = int(block_N[rows[-1]]) + 2
    return block_N


def _members(count: int, labels_N: NDArray[Any] | None) -> list[Ints]:
    """Rows of each label."""
    if labels_N is None:
        return [np.arange(count)]
    codes_N = np.unique(np.asarray(labels_N), return_inverse=True)[1]
    return [np.flatnonzero(codes_N == code) for code in range(int(codes_N.max()) + 1)]


@dataclass(frozen=True, eq=False)
class _Places:
    """Recordings of one state. runs: rows of each sequence, in order. position_N: of `rows`, far apart for different
    sequences."""

    rows: Ints
    runs: list[Ints]
    position_N: Ints

    @classmethod
    def of(cls, rows: Ints, sequences_N: NDArray[Any] | None) -> _Places:
        labels = None if sequences_N is None else np.asarray(sequences_N)[rows]
        runs = _members(len(rows), labels)
        position_N = np.empty(len(rows), dtype=np.int64)
        for number, run in enumerate(runs):
            position_N[run] = 3 * len(rows) * number + np.arange(len(run))
        return cls(rows, [rows[run] for run in runs], position_N)

    def near(self, z_ND: NDArray[np.float64], excluded: int, width: int) -> tuple[float, float, float]:
        """Recordings whose nearest beyond `excluded` lags is in the next `width`; by chance, and its variance."""
        position_N, z_MD = self.position_N, z_ND[self.rows]
        neighbour_N = nearest(z_MD, z_MD, 1, query_blocks_N=position_N, bank_blocks_M=position_N, block_reach=excluded)[
            1
        ][:, 0]
        lag_N = np.abs(position_N[neighbour_N] - position_N)
        near = int(((neighbour_N >= 0) & (lag_N <= excluded + width)).sum())
        within_N = self._within(excluded)
        chance_N = (self._within(excluded + width) - within_N) / np.maximum(len(position_N) - within_N, 1)
        return near, float(chance_N.sum()), self._variance(neighbour_N, chance_N, excluded)

    def _variance(self, neighbour_N: Ints, chance_N: NDArray[np.float64], lag: int) -> float:
        """Variance of the number of near neighbours by chance, where recordings up to `lag` apart are alike.

        Recordings of one block have their neighbours in one other block, and are often the neighbours of these: pairs
        of recordings of which both ends, in either direction, are at most `lag` apart count as completely correlated.
        """
        order_N = np.argsort(self.position_N)
        ordered_N = self.position_N[order_N]
        deviation_N = np.sqrt(chance_N * (1 - chance_N))
        start_N, end_N = self.position_N, self.position_N[neighbour_N]
        total = 0.0
        for shift in range(-lag, lag + 1):
            for near_N, far_N in ((start_N, end_N), (end_N, start_N)):
                slot_N = np.searchsorted(ordered_N, near_N + shift).clip(max=len(ordered_N) - 1)
                other_N = order_N[slot_N]
                alike_N = (ordered_N[slot_N] == near_N + shift) & (np.abs(end_N[other_N] - far_N) <= lag)
                total += float((deviation_N * deviation_N[other_N])[alike_N].sum())
        return total

    def _within(self, lag: int) -> Ints:
        """Number of recordings at most `lag` away from each, itself included."""
        ordered = np.sort(self.position_N)
        after_N = np.searchsorted(ordered, self.position_N + lag, side="right")
        return np.asarray(after_N - np.searchsorted(ordered, self.position_N - lag, side="left"))

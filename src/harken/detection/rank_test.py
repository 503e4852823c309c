"""Whether several recordings score higher, as a whole, than held-out normal ones do."""

from __future__ import annotations

from math import erfc, floor, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

#: up to so many pairs the law of their number is exact
_EXACT_PAIRS = 2_000


def higher_p(scores_M: ArrayLike, held_out_N: ArrayLike) -> float:
    """One-sided p-value that M scores come from the law of N held-out ones, by ranks (Mann and Whitney 1947).

    U is the number of pairs in which the new score is higher, equal ones half. Its law is exact for few pairs, rounded
    down where scores are equal; of many it is the normal one of mean M N / 2 and variance M N (M + N + 1) / 12,
    corrected for continuity, whose tails are heavier. Scores are exchangeable: independent, or in no order.
    """
    new_M, held_out_S = np.asarray(scores_M, dtype=np.float64), np.sort(np.asarray(held_out_N, dtype=np.float64))
    higher_M = np.searchsorted(held_out_S, new_M, side="left") + np.searchsorted(held_out_S, new_M, side="right")
    higher, pairs = float(higher_M.sum()) / 2, len(new_M) * len(held_out_S)
    if pairs <= _EXACT_PAIRS:
        return float(min(1.0, _law(len(new_M), len(held_out_S))[floor(higher) :].sum()))
    deviation = sqrt(pairs * (len(new_M) + len(held_out_S) + 1) / 12)
    return 0.5 * erfc((higher - 0.5 - pairs / 2) / deviation / sqrt(2))


def _law(new: int, normal: int) -> Float64:
    """(new normal + 1,) probability of each number of pairs, by which of all scores is the highest (section 3)."""
    size = new * normal + 1
    laws = [np.eye(1, size)[0] for _ in range(normal + 1)]  # without a new score
    for m in range(1, new + 1):
        previous, laws = laws, [np.eye(1, size)[0]]
        for n in range(1, normal + 1):
            law_U = laws[n - 1] * (n / (m + n))
            law_U[n:] += previous[n][: size - n] * (m / (m + n))
            laws.append(law_U)
    return laws[normal]

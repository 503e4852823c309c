"""How like real clips generated ones are, by their embeddings: Fréchet distance, two-sample test, near copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32] | NDArray[np.float64]
Float64 = NDArray[np.float64]

#: pairs of halves over which distances are averaged
DRAWS = 20
#: real clips whose nearest neighbour is so near that a generated one as near counts as a near copy
COPIED = 0.05
#: real or generated clips that a comparison needs at least: two halves of two
FEWEST = 2


@dataclass(frozen=True)
class Likeness:
    """Generated clips of a condition compared with the real ones; None where there are too few.

    size: clips on each side of a comparison. frechet, floor: squared Fréchet distances to `size` generated clips and to
    as many other real ones. test, test_floor: leave-one-out accuracy of the nearest neighbour in telling the two apart,
    0.5 where they cannot be told apart. same: share of generated clips whose nearest real clip of the machine is of
    their condition; same_floor: of real ones. copies: share of near copies; of real clips it is `COPIED`.
    """

    size: int
    frechet: float | None
    floor: float | None
    test: float | None
    test_floor: float | None
    same: float
    same_floor: float | None
    copies: float | None


def frechet_distance(x_ND: Float, y_MD: Float) -> float:
    """|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)) of the Gaussians with the means and unbiased covariances of two
    sets of embeddings (Dowson and Landau, 1982; of embeddings of sound: Kilgour et al., Interspeech 2019).

    Also for fewer rows than dimensions: the trace of the root is the sum of the singular values of X Y^T, centred and
    scaled. Raises ValueError for fewer than two rows.
    """
    if len(x_ND) < 2 or len(y_MD) < 2:
        raise ValueError("a covariance needs two rows")
    x, y = np.asarray(x_ND, dtype=np.float64), np.asarray(y_MD, dtype=np.float64)
    between = float(np.square(x.mean(axis=0) - y.mean(axis=0)).sum())
    x, y = ((z - z.mean(axis=0)) / np.sqrt(len(z) - 1) for z in (x, y))
    root = float(np.linalg.svd(x @ y.T, compute_uv=False).sum())
    return max(0.0, between + float(np.square(x).sum() + np.square(y).sum()) - 2 * root)


def two_sample_accuracy(x_ND: Float, y_ND: Float) -> float:
    """Share of the rows of two sets of one size whose nearest other row is of their set: 0.5 on average for sets of one
    distribution, 1 for sets apart, less than 0.5 for copies (Lopez-Paz and Oquab, "Revisiting classifier two-sample
    tests", ICLR 2017; leave-one-out 1-NN as in Xu et al., 2018). Ties count by half. ValueError for other sizes."""
    if len(x_ND) != len(y_ND) or len(x_ND) < 2:
        raise ValueError("two sets of one size, two rows at least")
    rows_PD = np.concatenate([x_ND, y_ND]).astype(np.float64)
    of_P = np.repeat([0, 1], len(x_ND))
    distances_PP = distances(rows_PD, rows_PD)
    np.fill_diagonal(distances_PP, np.inf)
    nearest_P = distances_PP.min(axis=1, keepdims=True)
    tied_PP = distances_PP <= nearest_P
    same_P = (tied_PP & (of_P[:, None] == of_P)).sum(axis=1) / tied_PP.sum(axis=1)
    return float(same_P.mean())


def distances(x_ND: Float, y_MD: Float) -> Float64:
    """(N, M) Euclidean distances, exactly 0 between equal rows."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(np.asarray(x_ND, np.float64), np.asarray(y_MD, np.float64)))


def likeness(
    generated_ND: Float, real_MD: Float, conditions_M: Sequence[object], condition: object, *, seed: int = 0
) -> Likeness:
    """Generated clips of a condition beside all real ones of its machine.

    conditions_M: of the real clips. seed: of the halves that are drawn.
    """
    of_M = np.array([label == condition for label in conditions_M])
    real_KD = real_MD[of_M]
    size = min(len(real_KD) // 2, len(generated_ND))
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, float, float, float]] = []
    for _ in range(DRAWS if size >= FEWEST else 0):
        halves = rng.permutation(len(real_KD))
        first, second = real_KD[halves[:size]], real_KD[halves[size : 2 * size]]
        drawn = generated_ND[rng.permutation(len(generated_ND))[:size]]
        rows.append((frechet_distance(first, drawn), frechet_distance(first, second),
                     two_sample_accuracy(first, drawn), two_sample_accuracy(first, second)))  # fmt: skip
    means = [float(value) for value in np.mean(rows, axis=0)] if rows else [None] * 4
    to_real_NM = distances(generated_ND, real_MD)
    apart_MM = distances(real_MD, real_MD)
    np.fill_diagonal(apart_MM, np.inf)
    limit = float(np.quantile(apart_MM.min(axis=1), COPIED)) if len(real_MD) > 1 else None
    return Likeness(
        size=size,
        frechet=means[0],
        floor=means[1],
        test=means[2],
        test_floor=means[3],
        same=float(of_M[to_real_NM.argmin(axis=1)].mean()),
        same_floor=float(of_M[apart_MM[of_M].argmin(axis=1)].mean()) if len(real_KD) > 1 else None,
        copies=None if limit is None else float((to_real_NM.min(axis=1) < limit).mean()),
    )

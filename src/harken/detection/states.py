"""Operating states of a machine, found in its normal recordings when nobody has named them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from harken.detection.space import standardisation

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]

#: clips that are clustered; any more are put to the nearest state afterwards
_MOST = 1500
_DIRECTIONS = 3


def find_states(
    embeddings_ND: NDArray[np.floating], *, most: int = 6, fewest_clips: int = 3, separation: float = 0.5
) -> Ints:
    """(clips,) state number of each clip, 0 = the largest state; all 0 when no clear states stand out.

    Ward clustering of the standardised embeddings in their three main directions (where a few bands that change
    together are not drowned by all the others); the number of states, up to `most`, is the one of the largest mean
    silhouette (Rousseeuw 1987), if that exceeds `separation` (normal clips of one state reach about 0.3; cutting a
    continuum of speeds may exceed it, which does no harm)
    and no state has less than `fewest_clips` clips.
    """
    rows_ND = np.asarray(embeddings_ND, dtype=np.float64)
    count = len(rows_ND)
    if count < 2 * fewest_clips:
        return np.zeros(count, dtype=np.int64)
    mean_D, scale_D = standardisation(rows_ND)
    z_ND = (rows_ND - mean_D) / scale_D
    z_ND = z_ND @ np.linalg.svd(z_ND, full_matrices=False)[2][:_DIRECTIONS].T
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST)).round().astype(np.int64))
    distances = pdist(z_ND[chosen])
    if not distances.any():
        return np.zeros(count, dtype=np.int64)
    tree = linkage(z_ND[chosen], "ward")
    square_NN = squareform(distances)
    best, labels = separation, np.ones(len(chosen), dtype=np.int64)
    for states in range(2, most + 1):
        candidate = fcluster(tree, states, "maxclust")
        if np.bincount(candidate)[1:].min() < fewest_clips:
            continue
        value = _silhouette(square_NN, candidate)
        if value > best:
            best, labels = value, candidate
    centres = np.stack([z_ND[chosen][labels == label].mean(axis=0) for label in np.unique(labels)])
    nearest_N = np.argmin(((z_ND[:, None, :] - centres[None]) ** 2).sum(axis=2), axis=1)
    nearest_N[chosen] = np.unique(labels, return_inverse=True)[1]
    by_size = np.argsort(-np.bincount(nearest_N), kind="stable")
    return np.argsort(by_size, kind="stable")[nearest_N].astype(np.int64)


def _silhouette(square_NN: Float64, labels_N: Ints) -> float:
    """Mean over clips of (b - a) / max(a, b): a to its own group, b to the nearest other."""
    groups = np.unique(labels_N)
    member_NG = (labels_N[:, None] == groups).astype(np.float64)
    sums_NG = square_NN @ member_NG
    sizes_G = member_NG.sum(axis=0)
    own = member_NG.astype(bool)
    own_size_N = (member_NG @ sizes_G) - 1
    within_N = sums_NG[own] / np.maximum(own_size_N, 1)
    other_NG = np.where(own, np.inf, sums_NG / sizes_G)
    between_N = other_NG.min(axis=1)
    widest = np.maximum(within_N, between_N)
    return float(
        np.mean(np.where((widest > 0) & (own_size_N > 0), (between_N - within_N) / np.where(widest > 0, widest, 1), 0))
    )

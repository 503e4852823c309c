"""Unsupervised detection of a machine's operating states in its normal recordings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harken.detection.space import standardisation

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]

#: maximum number of clips to cluster; further ones are assigned to the nearest state
_MAX_CLUSTERED = 1500
_DIRECTIONS = 3


def find_states(
    embeddings_ND: NDArray[np.floating], *, most: int = 6, fewest_clips: int = 3, separation: float = 0.5
) -> Ints:
    """(clips,) state index of each clip, 0 = the largest state; all 0 without clear states.

    Ward clustering of the standardised embeddings in their first three principal directions (so that a few bands that
    change together are not masked by the others). The number of states, up to `most`, is that of the largest mean
    silhouette (Rousseeuw 1987), if it exceeds `separation` (normal clips of one state reach about 0.3; dividing a
    continuum of speeds may exceed it, which is harmless) and no state has fewer than `fewest_clips` clips.
    """
    rows_ND = np.asarray(embeddings_ND, dtype=np.float64)
    count = len(rows_ND)
    if count < 2 * fewest_clips:
        return np.zeros(count, dtype=np.int64)
    mean_D, scale_D = standardisation(rows_ND)
    z_ND = (rows_ND - mean_D) / scale_D
    z_ND = z_ND @ np.linalg.svd(z_ND, full_matrices=False)[2][:_DIRECTIONS].T
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MAX_CLUSTERED)).round().astype(np.int64))
    # Imported on use: scoring needs none of it.
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist, squareform

    distances = pdist(z_ND[chosen])
    if not distances.any():
        return np.zeros(count, dtype=np.int64)
    tree = linkage(z_ND[chosen], "ward")
    square_NN = squareform(distances)
    best, labels = separation, np.ones(len(chosen), dtype=np.int64)
    for states in range(2, most + 1):
        candidate = fcluster(tree, states, "maxclust")
        # Ties may leave a single cluster, for which there is no silhouette.
        if len(np.unique(candidate)) < 2 or np.bincount(candidate)[1:].min() < fewest_clips:
            continue
        value = silhouette(square_NN, candidate)
        if value > best:
            best, labels = value, candidate
    centres = np.stack([z_ND[chosen][labels == label].mean(axis=0) for label in np.unique(labels)])
    nearest_N = np.argmin(((z_ND[:, None, :] - centres[None]) ** 2).sum(axis=2), axis=1)
    nearest_N[chosen] = np.unique(labels, return_inverse=True)[1]
    by_size = np.argsort(-np.bincount(nearest_N), kind="stable")
    return np.argsort(by_size, kind="stable")[nearest_N].astype(np.int64)


def silhouette(distance_NN: Float64, labels_N: NDArray[np.integer]) -> float:
    """Mean silhouette (Rousseeuw 1987, eq. 3) of two clusters or more, that of a cluster of one being 0.

    As scikit-learn's, whose import takes a second of each fit.
    """
    number_N = np.unique(labels_N, return_inverse=True)[1]
    member_NK = np.eye(number_N.max() + 1)[number_N]
    size_K = member_NK.sum(axis=0)
    sum_NK = distance_NN @ member_NK
    own_N = np.arange(len(number_N)), number_N
    size_N = size_K[number_N]
    within_N = sum_NK[own_N] / np.maximum(size_N - 1, 1)
    mean_NK = sum_NK / size_K
    mean_NK[own_N] = np.inf
    nearest_N = mean_NK.min(axis=1)
    larger_N = np.maximum(within_N, nearest_N)
    value_N = (nearest_N - within_N) / np.where(larger_N > 0, larger_N, 1.0)
    return float(np.where(size_N > 1, value_N, 0.0).mean())

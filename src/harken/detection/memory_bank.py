"""Memory banks of nearest-neighbour detectors: all normal clips, target clips, k-means centres, SMOTE samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harken.core.threads import one_thread
from harken.detection.neighbours import Metric, unit_rows

Float64 = NDArray[np.float64]
BankName = Literal["all", "target", "kmeans"]
Oversampling = Literal["smote"]

#: neighbours used by SMOTE
SMOTE_NEIGHBOURS = 2


def is_source(domains_N: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(clips,) whether a clip is in the largest domain, the source; all others are target domains."""
    labels, counts = np.unique(domains_N, return_counts=True)
    return np.asarray(domains_N == labels[np.argmax(counts)])


def kmeans_centres(rows_ND: Float64, clusters: int, seed: int) -> Float64:
    """(K, D) k-means centres: at most one per four rows, and one per distinct row."""
    # Imported on use: takes a second, and most banks need no centres. Its threads are then new to the caller's limit.
    from sklearn.cluster import KMeans as SklearnKMeans

    distinct = len(np.unique(rows_ND, axis=0))
    count = max(1, min(clusters, len(rows_ND) // 4, distinct))
    with one_thread():
        model = SklearnKMeans(count, n_init=4, random_state=seed).fit(rows_ND)
    return np.asarray(model.cluster_centers_, dtype=np.float64)


def smote(rows_ND: Float64, domains_N: NDArray[np.str_], seed: int) -> tuple[Float64, NDArray[np.str_]]:
    """Rows and domains with every target domain raised to the size of the source by SMOTE (Chawla et al., JAIR 2002).

    A new row is a random interpolation between a target clip and one of its `SMOTE_NEIGHBOURS` nearest target clips
    (fewer where there are fewer clips); a domain of one clip is not oversampled. New rows follow the given ones.
    """
    # Imported on use: takes two seconds.
    from imblearn.over_sampling import SMOTE  # type: ignore[import-untyped]

    source = is_source(domains_N)
    count = int(source.sum())
    rows, domains = [rows_ND], [domains_N]
    for label in np.unique(domains_N[~source]):
        in_domain = domains_N == label
        size = int(in_domain.sum())
        if size < 2 or size == count:
            continue
        sampler = SMOTE(sampling_strategy={1: count}, k_neighbors=min(SMOTE_NEIGHBOURS, size - 1), random_state=seed)
        both_ND = np.concatenate([rows_ND[source], rows_ND[in_domain]])
        with one_thread():
            new_MD = sampler.fit_resample(both_ND, np.repeat([0, 1], [count, size]))[0][len(both_ND) :]
        rows.append(new_MD)
        domains.append(np.full(len(new_MD), label))
    return np.concatenate(rows), np.concatenate(domains)


def is_training_set(bank: BankName, oversample: Oversampling | None) -> bool:
    """Whether the memory bank consists of the normal clips, so that each can be left out exactly."""
    return bank == "all" and oversample is None


def check_bank_size(bank: BankName, oversample: Oversampling | None, sizes: Mapping[str, int]) -> None:
    """Raise ValueError for a bank of M rows that cannot be that of N normal clips, where their number is known."""
    if is_training_set(bank, oversample) and sizes["M"] != sizes.get("N", sizes["M"]):
        raise ValueError(f"a bank of {sizes['M']} rows of {sizes['N']} clips")


def memory_bank(
    rows_ND: Float64,
    domains_N: NDArray[np.str_],
    *,
    bank: BankName,
    oversample: Oversampling | None,
    clusters: int,
    metric: Metric,
    seed: int,
) -> tuple[Float64, NDArray[np.str_]]:
    """Rows and domains of the memory bank, from those of the normal clips.

    oversample: `smote` first draws new target clips, see `smote`. bank: `all` keeps all rows; `target` keeps the target
    domains only, or all rows if there are none; `kmeans` replaces the source domain by at most `clusters` centres, of
    unit rows for cosine distance (as in Wilkinghoff's systems).
    Raises ValueError for other values.
    """
    if bank not in ("all", "target", "kmeans"):
        raise ValueError(f"unknown bank {bank!r}; choose all, target or kmeans")
    if oversample not in (None, "smote"):
        raise ValueError(f"unknown oversample {oversample!r}; choose smote")
    source = is_source(domains_N)
    label = domains_N[source][0]
    if oversample == "smote":
        rows_ND, domains_N = smote(rows_ND, domains_N, seed)
        source = domains_N == label
    if bank == "all" or (bank == "target" and source.all()):
        return rows_ND, domains_N
    if bank == "target":
        return rows_ND[~source], domains_N[~source]
    if metric == "cosine":
        rows_ND = unit_rows(rows_ND)
    centres_KD = kmeans_centres(rows_ND[source], clusters, seed)
    return (
        np.concatenate([centres_KD, rows_ND[~source]]),
        np.concatenate([np.full(len(centres_KD), label), domains_N[~source]]),
    )

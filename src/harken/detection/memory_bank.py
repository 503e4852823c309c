"""Which rows a nearest-neighbour detector compares with: all normal clips, those of the target, centres, SMOTE."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans as SklearnKMeans

from harken.detection.neighbours import Metric, unit_rows

Float64 = NDArray[np.float64]
BankName = Literal["all", "target", "kmeans"]
Oversampling = Literal["smote"]

#: of SMOTE: the neighbours between which and a clip new ones are drawn
SMOTE_NEIGHBOURS = 2


def is_source(domains_N: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(clips,) whether a clip is of the domain that has most clips; all others are target domains."""
    labels, counts = np.unique(domains_N, return_counts=True)
    return np.asarray(domains_N == labels[np.argmax(counts)])


def centres_of(rows_ND: Float64, clusters: int, seed: int) -> Float64:
    """k-means centres: at most one for every four rows, and for every distinct one."""
    distinct = len(np.unique(rows_ND, axis=0))
    count = max(1, min(clusters, len(rows_ND) // 4, distinct))
    model = SklearnKMeans(count, n_init=4, random_state=seed).fit(rows_ND)
    return np.asarray(model.cluster_centers_, dtype=np.float64)


def smote(rows_ND: Float64, domains_N: NDArray[np.str_], seed: int) -> tuple[Float64, NDArray[np.str_]]:
    """Rows and domains with every target domain raised to the size of the source by SMOTE (Chawla et al., JAIR 2002).

    A new row lies at a random place between a target clip and one of its `SMOTE_NEIGHBOURS` nearest ones (fewer where
    there are fewer clips); a lone clip has none and stays alone. New rows come after the given ones.
    """
    # Imported on use: it takes a second.
    from imblearn.over_sampling import SMOTE  # type: ignore[import-untyped]

    source = is_source(domains_N)
    count = int(source.sum())
    rows, domains = [rows_ND], [domains_N]
    for label in np.unique(domains_N[~source]):
        own = domains_N == label
        few = int(own.sum())
        if few < 2 or few == count:
            continue
        sampler = SMOTE(sampling_strategy={1: count}, k_neighbors=min(SMOTE_NEIGHBOURS, few - 1), random_state=seed)
        both_ND = np.concatenate([rows_ND[source], rows_ND[own]])
        new_MD = sampler.fit_resample(both_ND, np.repeat([0, 1], [count, few]))[0][len(both_ND) :]
        rows.append(new_MD)
        domains.append(np.full(len(new_MD), label))
    return np.concatenate(rows), np.concatenate(domains)


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
    """Rows and domains of what new clips are compared with, from those of the normal clips.

    oversample: `smote` first draws new target clips, see there. bank: then `all` keeps everything; `target` what is
    not of the source domain, and everything where there is no other; `kmeans` puts at most `clusters` centres in the
    place of the source domain (the bank of Wilkinghoff's systems), for cosine those of its directions.
    Raises ValueError for another word.
    """
    if bank not in ("all", "target", "kmeans"):
        raise ValueError(f"unknown bank {bank!r}; there are all, target and kmeans")
    if oversample not in (None, "smote"):
        raise ValueError(f"unknown oversample {oversample!r}; there is smote")
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
    centres_KD = centres_of(rows_ND[source], clusters, seed)
    return (
        np.concatenate([centres_KD, rows_ND[~source]]),
        np.concatenate([np.full(len(centres_KD), label), domains_N[~source]]),
    )

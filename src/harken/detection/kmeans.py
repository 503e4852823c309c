"""Distance to the nearest k-means centre."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from harken.core.arrays import Stored
from harken.detection.base import AnomalyDetector, Float64
from harken.detection.memory_bank import is_source, kmeans_centres
from harken.detection.neighbours import Metric, nearest, unit_rows
from harken.detection.space import scaling


class KMeans(AnomalyDetector):
    """Distance to the nearest of `clusters` centres of the majority domain or clip of the other domains.

    The memory bank of the SSL systems (Wilkinghoff 2023): k-means over the source clips; all of the few target clips
    are kept. At most one centre per four clips.

    space: `standard` scales each dimension to unit variance first, `raw` uses embeddings unchanged. With cosine
    distance, a single centre is useless in the standard space, where it is the origin. seed: of k-means.
    """

    name: ClassVar[str] = "kmeans"

    scale_: Annotated[Float64, Stored("D", over=0)]
    centres_: Annotated[Float64, Stored("K D")]

    def __init__(
        self,
        clusters: PositiveInt = 16,
        metric: Metric = "euclidean",
        seed: NonNegativeInt = 0,
        space: Literal["standard", "raw"] = "standard",
    ) -> None:
        self.clusters = clusters
        self.metric = metric
        self.seed = seed
        self.space = space

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        self.mean_, self.scale_ = scaling(bank_ND, self.space)
        scaled_ND = (bank_ND - self.mean_) / self.scale_
        if self.metric == "cosine":
            scaled_ND = unit_rows(scaled_ND)
        source = is_source(domains_N)
        centres_KD = kmeans_centres(scaled_ND[source], self.clusters, self.seed)
        self.centres_ = np.concatenate([centres_KD, scaled_ND[~source]])

    def _score(self, queries_ND: Float64) -> Float64:
        scaled_ND = (queries_ND - self.mean_) / self.scale_
        return nearest(scaled_ND, self.centres_, 1, metric=self.metric)[0][:, 0]

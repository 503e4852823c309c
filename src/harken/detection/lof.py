"""Local outlier factor."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import LocalOutlierFactor

from harken.detection.base import AnomalyDetector, Float64
from harken.detection.space import standardisation


class LOF(AnomalyDetector):
    """Local outlier factor (Breunig et al. 2000) with respect to the training clips; Euclidean, standardised."""

    name: ClassVar[str] = "lof"

    scale_: Float64
    bank_: Float64

    def __init__(self, neighbours: int = 16) -> None:
        self.neighbours = neighbours

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        self.mean_, self.scale_ = standardisation(bank_ND)
        self.bank_ = bank_ND
        self._rebuild()

    def _rebuild(self) -> None:
        count = min(self.neighbours, len(self.bank_) - 1)
        self._model = LocalOutlierFactor(n_neighbors=count, novelty=True, algorithm="brute")
        self._model.fit((self.bank_ - self.mean_) / self.scale_)

    def _score(self, queries_ND: Float64) -> Float64:
        scaled_ND = (queries_ND - self.mean_) / self.scale_
        # One row per call: matrix products of one shape are bitwise repeatable.
        return np.array([-float(self._model.score_samples(row[None])[0]) for row in scaled_ND])

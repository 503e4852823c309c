"""Mahalanobis distance with a shrunk covariance, selective over domains."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from harken.core.arrays import Stored, positive_definite
from harken.detection.base import AnomalyDetector, Float64
from harken.detection.space import RESOLUTION, ledoit_wolf_shrinkage, standardisation


class Mahalanobis(AnomalyDetector):
    """min over domains of sqrt((x - mu_d)^T P (x - mu_d)): the selective Mahalanobis of the DCASE baseline.

    The precision P is pooled over domains (ten target clips are too few for a covariance) and shrunk by the method of
    Ledoit and Wolf (2004), so that fewer clips than dimensions suffice.
    """

    name: ClassVar[str] = "mahalanobis"

    scale_: Annotated[Float64, Stored("D", over=0)]
    centres_: Annotated[Float64, Stored("K D")]
    precision_: Annotated[Float64, Stored("D D", rule=positive_definite)]

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        self.mean_, self.scale_ = standardisation(bank_ND)
        scaled_ND = (bank_ND - self.mean_) / self.scale_
        labels, domain_N = np.unique(domains_N, return_inverse=True)
        self.centres_ = np.stack([scaled_ND[domain_N == d].mean(axis=0) for d in range(len(labels))])
        residual_ND = scaled_ND - self.centres_[domain_N]
        shrinkage = max(ledoit_wolf_shrinkage(residual_ND), 1e-3)
        level = float(np.mean(residual_ND**2))
        if level < RESOLUTION**2:
            # All clips are equal: no direction is unusual.
            level, shrinkage = 1.0, 1.0
        covariance_DD: Float64 = (1 - shrinkage) * (residual_ND.T @ residual_ND) / len(residual_ND)
        covariance_DD.flat[:: len(covariance_DD) + 1] += shrinkage * level
        self.precision_ = np.asarray(np.linalg.inv(covariance_DD), dtype=np.float64)

    def _score(self, queries_ND: Float64) -> Float64:
        scaled_ND = (queries_ND - self.mean_) / self.scale_
        difference_NKD = scaled_ND[:, None, :] - self.centres_[None]
        # Row by row: matrix products of one shape are bitwise repeatable.
        return np.array(
            [
                min(float(np.sqrt(max(row @ (self.precision_ @ row), 0.0))) for row in rows_KD)
                for rows_KD in difference_NKD
            ]
        )

"""The score of an autoencoder's residuals, which is fitted to no further clips."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from harken.detection.base import AnomalyDetector, Float64, Ints


class ReconstructionError(AnomalyDetector):
    """Scores of the DCASE baseline from mean residuals of clips, see `encoders.residuals.Residuals`.

    squared_length: of the vectors of each of `domains`, which stand one after the other: the smallest one is the score.
    Otherwise the score is the sum of all dimensions.

    The autoencoder has learned from the clips, and there is no second one without some of them: `train_scores_` of
    `fit` are scores like any other, a little lower than those of new clips. A run's held-out ones take their place.
    """

    name: ClassVar[str] = "reconstruction_error"

    def __init__(self, squared_length: bool = False, domains: int = 1) -> None:
        self.squared_length = squared_length
        self.domains = domains

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        if self.domains < 1 or bank_ND.shape[1] % self.domains:
            raise ValueError(f"{bank_ND.shape[1]} dimensions are not those of {self.domains} domains")
        self.mean_ = np.zeros(bank_ND.shape[1])

    def _score(self, queries_ND: Float64) -> Float64:
        if not self.squared_length:
            return np.asarray(queries_ND.sum(axis=1))
        vectors_NKD = queries_ND.reshape(len(queries_ND), self.domains, -1)
        return np.asarray((vectors_NKD**2).sum(axis=2).min(axis=1))

    def _held_out(self, bank_ND: Float64, domains_N: NDArray[np.str_], blocks_N: Ints) -> Float64:
        return self._score(bank_ND)

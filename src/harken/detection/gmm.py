"""Gaussian mixture model: negative log-likelihood."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from harken.core.arrays import Stored, summing_to_one
from harken.detection.base import AnomalyDetector, Float64
from harken.detection.space import standardisation


class GMM(AnomalyDetector):
    """-log p(x) under a mixture of `components` Gaussians with diagonal covariances.

    At most one component per ten clips. `regularisation` is added to the variance of each standardised dimension, so
    that almost constant dimensions do not dominate the likelihood.
    """

    name: ClassVar[str] = "gmm"

    scale_: Annotated[Float64, Stored("D", over=0)]
    weights_: Annotated[Float64, Stored("K", over=0, rule=summing_to_one)]
    means_: Annotated[Float64, Stored("K D")]
    covariances_: Annotated[Float64, Stored("K D", over=0)]

    def __init__(
        self,
        components: PositiveInt = 2,
        regularisation: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.1,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.components = components
        self.regularisation = regularisation
        self.seed = seed

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        # It takes a second to import.
        from sklearn.mixture import GaussianMixture

        self.mean_, self.scale_ = standardisation(bank_ND)
        model = GaussianMixture(
            max(1, min(self.components, len(bank_ND) // 10)),
            covariance_type="diag",
            reg_covar=self.regularisation,
            random_state=self.seed,
            n_init=3,
        ).fit((bank_ND - self.mean_) / self.scale_)
        self.weights_, self.means_, self.covariances_ = model.weights_, model.means_, model.covariances_

    def _score(self, queries_ND: Float64) -> Float64:
        scaled_ND = (queries_ND - self.mean_) / self.scale_
        squared_NKD = (scaled_ND[:, None, :] - self.means_) ** 2 / self.covariances_
        log_norm_K = np.sum(np.log(2 * np.pi * self.covariances_), axis=1)
        log_NK = np.log(self.weights_) - 0.5 * (np.sum(squared_NKD, axis=2) + log_norm_K)
        top_N1 = log_NK.max(axis=1, keepdims=True)
        return -(top_N1[:, 0] + np.log(np.sum(np.exp(log_NK - top_N1), axis=1)))

"""The trained autoencoder of the DCASE baseline as an encoder of what it does not reconstruct, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import WeightsError
from harken.encoders.frame_encoder import FrameEncoder
from harken.encoders.registry import create_encoder, register_encoder
from harken.weights.tensors import check_tensors

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
#: squared: of residuals; whitened: residuals in units of their deviation in each domain; distance: squared Mahalanobis
#: length of residuals in the domain that gives the smaller one
Statistic = Literal["squared", "whitened", "distance"]


@register_encoder("residuals", listed=False)
class Residuals(FrameEncoder):
    """Residuals of an autoencoder on stacked frames (Harada et al., EUSIPCO 2023): reconstruction minus input.

    A frame stands for a vector of consecutive frames of the front end, as many as the network takes. Layer `residuals`
    is such that scores of the baseline are sums over the dimensions of its mean over time (`ReconstructionError`):

    * `squared`, D = bands: each band's share of the mean squared error.
    * `whitened`, D = domains x bands: the mean residual of the vector's frames, times a factor of the inverse
      covariance of each domain. Squared lengths of a clip's mean are the Mahalanobis distances of the published code.
    * `distance`, D = bands: each band's share of the Mahalanobis distance of the paper (equation 6).

    front_end: an encoder with one layer and without weights, and its arguments. weights: `<n>.weight` (outputs, inputs)
    and `<n>.bias` of the dense layers, between which there are ReLUs, and `precision` (domains, bands, bands).
    """

    needs_weights: ClassVar[bool] = True

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]] | None = None,
        *,
        front_end: str = "log_mel",
        front_end_config: Mapping[str, Any] | None = None,
        statistic: Statistic = "squared",
    ) -> None:
        """Raises WeightsError for weights that are missing, misshapen or not finite, ValueError for no such
        statistic."""
        if statistic not in get_args(Statistic):
            raise ValueError(f"there is no statistic {statistic!r}; there are {', '.join(get_args(Statistic))}")
        self.statistic: Statistic = statistic
        self._front = create_encoder(front_end, front_end_config)
        self.sample_rate = self._front.sample_rate
        self.layers = ("residuals",)
        self.default_layer = "residuals"
        silence_1S = np.zeros((1, self._front.min_samples), dtype=np.float32)
        bands = self._front.encode(silence_1S).features_BLTD.shape[-1]
        self._weights = dict(weights or {})
        self._layers = _dense(self._weights, bands)
        #: consecutive frames of a vector
        self.stack = self._layers[0][0].shape[0] // bands
        self._precision_KDD = np.asarray(self._weights["precision"], dtype=np.float64)
        self._factors_KDD = [_factor(precision_DD) for precision_DD in self._precision_KDD]
        self.min_samples = self._samples_of(self.stack)

    def config(self) -> dict[str, Any]:
        return {
            "front_end": self._front.name,
            "front_end_config": self._front.config(),
            "statistic": self.statistic,
        }

    def weights(self) -> Mapping[str, NDArray[Any]]:
        return self._weights

    def frames(self, samples_S: Float32) -> Float32:
        """(samples,) -> (vectors, D), see the class."""
        residual_TKD = self._residuals(samples_S)
        if self.statistic == "squared":
            frames_TD = np.mean(residual_TKD**2, axis=1) / residual_TKD.shape[2]
        elif self.statistic == "whitened":
            mean_TD = residual_TKD.mean(axis=1)
            frames_TD = np.concatenate([mean_TD @ factor_DD for factor_DD in self._factors_KDD], axis=1)
        else:
            shares = [((residual_TKD @ p_DD) * residual_TKD).mean(axis=1) for p_DD in self._precision_KDD]
            shares_GTD = np.stack(shares)
            nearest_T = shares_GTD.sum(axis=2).argmin(axis=0)
            frames_TD = shares_GTD[nearest_T, np.arange(len(residual_TKD))]
        return frames_TD.astype(np.float32)

    def _residuals(self, samples_S: Float32) -> Float64:
        """(samples,) -> (vectors, stack, bands)."""
        encoded = self._front.encode(samples_S[None])
        frames_TD = encoded.features_BLTD[0, 0, : int(encoded.lengths_B[0])]
        stacked_TDK = np.lib.stride_tricks.sliding_window_view(frames_TD, self.stack, axis=0)
        x_TKD = np.ascontiguousarray(stacked_TDK.transpose(0, 2, 1), dtype=np.float64)
        y_TX = x_TKD.reshape(len(x_TKD), -1)
        for number, (weight_XY, bias_Y) in enumerate(self._layers):
            y_TX = y_TX @ weight_XY + bias_Y
            if number < len(self._layers) - 1:
                np.maximum(y_TX, 0.0, out=y_TX)
        return y_TX.reshape(x_TKD.shape) - x_TKD

    def _samples_of(self, frames: int) -> int:
        """Samples of a waveform with at least so many frames."""
        samples = self._front.min_samples
        while self._front.encode(np.zeros((1, samples), dtype=np.float32)).lengths_B[0] < frames:
            samples *= 2
        return samples


def _factor(precision_DD: Float64) -> Float64:
    """F with F F^T = precision. Of a domain of few clips it is so ill-conditioned that it has no Cholesky factor."""
    values_D, vectors_DD = np.linalg.eigh((precision_DD + precision_DD.T) / 2)
    return np.asarray(vectors_DD * np.sqrt(np.maximum(values_D, 0.0)))


def _dense(weights: Mapping[str, NDArray[Any]], bands: int) -> list[tuple[Float64, Float64]]:
    """(inputs, outputs) weight and bias of each layer. Raises WeightsError unless they make an autoencoder of stacked
    frames of `bands`."""
    count = sum(name.endswith(".weight") for name in weights)
    sizes = [len(weights[f"{n}.weight"]) for n in range(count) if weights.get(f"{n}.weight", np.empty(0)).ndim == 2]
    if not sizes or len(sizes) != count or sizes[-1] % bands:
        raise WeightsError(f"has no autoencoder of {bands} bands", next_step="Package the run again")
    domains = len(weights.get("precision", ()))
    shapes: dict[str, tuple[int, ...]] = {"precision": (domains, bands, bands)}
    for number, (inputs, outputs) in enumerate(zip([sizes[-1], *sizes[:-1]], sizes, strict=True)):
        shapes |= {f"{number}.weight": (outputs, inputs), f"{number}.bias": (outputs,)}
    check_tensors(weights, shapes, architecture="residuals")
    return [
        (
            np.ascontiguousarray(weights[f"{number}.weight"].T, dtype=np.float64),
            np.asarray(weights[f"{number}.bias"], dtype=np.float64),
        )
        for number in range(count)
    ]

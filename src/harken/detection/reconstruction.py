"""The DCASE Task 2 baseline: reconstruction error of an autoencoder trained on normal clips.

Harada et al., "First-shot anomaly sound detection for machine condition monitoring: a domain generalization baseline",
EUSIPCO 2023. The published code differs from the paper; `variant` selects:

|                          | published                                        | paper (eq. 6)                      |
|--------------------------|--------------------------------------------------|------------------------------------|
| covariance of a domain   | residual rows centred within each mini-batch     | centred over the whole domain      |
| denominator              | vectors - 1                                      | rows - 1                           |
| Mahalanobis of a clip    | of its mean residual row, minimum over domains   | of each row, mean over a vector,   |
|                          |                                                  | minimum over domains, mean in time |
| scores for the gamma fit | of mini-batches; for mse in the last epoch       | of training clips                  |

A vector is five stacked frames, its residual five rows of one frame each. All Mahalanobis distances are squared, and
residuals are not centred for scoring. The challenge results were computed by `published`. Its thresholds are too low,
as batches vary less than clips: on ToyCar id_04 (benchmarks/toycar.py) every clip exceeds them.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from harken.core.threads import torch_threads
from harken.encoders.autoencoder import Autoencoder
from harken.training.autoencoder import (
    AutoencoderSettings,
    Progress,
    StackedFrames,
    TrainedAutoencoder,
    batches,
    check_clips,
    shuffled,
    train,
)
from harken.training.settings import STACK

Float64 = NDArray[np.float64]
Frames = Sequence[NDArray[np.floating]] | NDArray[np.floating]
Mode = Literal["mse", "mahalanobis"]
Variant = Literal["published", "paper"]

MODES: tuple[Mode, ...] = get_args(Mode)


class Reconstruction:
    """Autoencoder on log-mel frames; higher scores = more anomalous.

    mode: `mse`, the mean squared error over all frames and bands, or `mahalanobis`, which weighs residuals by the
        inverse covariance of the source or the target domain, whichever gives the smaller distance. Both are fitted.
    variant: see the module docstring. quantile: of the gamma distribution of normal scores, used as `threshold`.

    Scores depend on the set of training clips but not on their order, and the score of a clip does not depend on the
    others scored in the same call, to the last bit.
    """

    #: learned weights by name
    weights_: dict[str, NDArray[Any]]
    #: (domains, D, D) inverse covariance of source and target, or of one of them if the other has too few clips
    precision_: Float64
    #: thresholds in the order of `MODES`
    thresholds_: Float64
    #: (clips,) score of each training clip, in the order of `fit`, over those of its vectors that the network has not
    #: learned from: the tenth that is kept to watch the training. NaN for a clip that has none of them. They overlap in
    #: time with vectors that were learned from, and are therefore a little lower than scores of new clips. Only where
    #: the score of a clip is a mean over its vectors: not of `mahalanobis` as published, the length of a mean residual,
    #: which is longer the fewer vectors there are. Not part of `state`.
    held_out_: dict[Mode, Float64]

    def __init__(
        self,
        mode: Mode = "mse",
        variant: Variant = "published",
        epochs: int = 100,
        batch: int = 256,
        learning_rate: float = 1e-3,
        seed: int = 13711,
        quantile: float = 0.9,
    ) -> None:
        if mode not in MODES or variant not in get_args(Variant):
            raise ValueError(f"mode is one of {', '.join(MODES)}; variant of {', '.join(get_args(Variant))}")
        if epochs < 1 or batch < 2 or not learning_rate > 0 or seed < 0 or not 0 < quantile < 1:
            raise ValueError("epochs >= 1, batch >= 2, learning_rate > 0, seed >= 0, 0 < quantile < 1")
        self.mode = mode
        self.variant = variant
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.seed = seed
        self.quantile = quantile

    def fit(
        self,
        frames: Frames,
        domains: ArrayLike | None = None,
        *,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
        every: int = 10,
    ) -> Self:
        """Fit to normal clips.

        frames: (frames, D) log-mel of each clip, or (clips, frames, D); at least five frames per clip.
        domains: label per clip; `target` is the target domain, all others are the source. None: all source.
        progress, checkpoint, every: see `training.autoencoder.train`. Fits that differ in mode, variant or quantile
            share a checkpoint and are trained once.
        Raises ValueError for invalid input, and for clips that are too few or too uniform for a covariance.
        """
        labels = np.full(len(frames), "source") if domains is None else np.asarray(domains).astype(str)
        if labels.shape != (len(frames),):
            raise ValueError(f"{len(frames)} clips need as many domains")
        check_clips(frames)
        # Canonical order: batches then do not depend on the order of files.
        keys = [hashlib.sha256(np.ascontiguousarray(clip, np.float32).data).digest() for clip in frames]
        order = sorted(range(len(keys)), key=lambda number: (keys[number], labels[number]))
        stacked = StackedFrames([frames[i] for i in order])
        is_target_V = (labels[order] == "target")[stacked.clip_V]
        settings = AutoencoderSettings(self.epochs, self.batch, self.learning_rate, self.seed)
        trained = train(stacked, settings, progress=progress, checkpoint=checkpoint, every=every)
        self._network = trained.network
        self.weights_ = {name: value.numpy() for name, value in trained.network.state_dict().items()}
        with torch_threads(1):
            self._calibrate(stacked, is_target_V, trained)
            self.held_out_ = self._held_out(stacked, trained.valid_rows, order)
        return self

    def scores(self, frames: Frames) -> dict[Mode, Float64]:
        """(clips,) scores in each mode, for clips as in `fit`. Raises ValueError unfitted or for invalid clips."""
        if not hasattr(self, "thresholds_"):
            raise ValueError("Reconstruction is not fitted")
        if len(frames) == 0:
            return {mode: np.empty(0) for mode in MODES}
        stacked = StackedFrames(frames)
        if stacked.bands != self.precision_.shape[1]:
            raise ValueError(f"expected (frames, {self.precision_.shape[1]}), got (frames, {stacked.bands})")
        with torch_threads(1):
            rows = [self._score(self._residual(stacked.clip(number))) for number in range(len(frames))]
        return {mode: np.array([row[mode] for row in rows]) for mode in MODES}

    def score(self, frames: Frames) -> Float64:
        """(clips,) scores in `mode`, float64; see `scores`."""
        return self.scores(frames)[self.mode]

    @property
    def threshold(self) -> float:
        """Clips with a higher score are classified as anomalous."""
        return float(self.thresholds_[MODES.index(self.mode)])

    def get_params(self) -> dict[str, Any]:
        """Constructor arguments by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def state(self) -> dict[str, NDArray[Any]]:
        """Learned attributes, name -> array."""
        learned = {f"network.{name}": value for name, value in self.weights_.items()}
        return {**learned, "precision_": self.precision_, "thresholds_": self.thresholds_}

    def restored(self, state: dict[str, NDArray[Any]]) -> Self:
        """This unfitted detector with the state of a fitted one; scores are the same to the last bit."""
        self.precision_, self.thresholds_ = state["precision_"], state["thresholds_"]
        self.weights_ = {
            name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")
        }
        self._network = Autoencoder(STACK * self.precision_.shape[1])
        self._network.load_state_dict({name: torch.tensor(value) for name, value in self.weights_.items()})
        self._network.eval()
        return self

    def _residual(self, x_VX: torch.Tensor) -> Float64:
        """(vectors, STACK * D) -> reconstruction - input, (vectors, STACK, D)."""
        with torch.inference_mode():
            residual_VX = self._network(x_VX) - x_VX
        return residual_VX.numpy().reshape(len(x_VX), STACK, -1).astype(np.float64)

    def _score(self, residual_VSD: Float64) -> dict[Mode, float]:
        distance = mean_row_distance if self.variant == "published" else mean_distance
        return {"mse": float(np.mean(residual_VSD**2)), "mahalanobis": distance(residual_VSD, self.precision_)}

    def _held_out(
        self, stacked: StackedFrames, valid_rows: NDArray[np.int64], order: Sequence[int]
    ) -> dict[Mode, Float64]:
        """See `held_out_`; order: number in `fit` of each clip."""
        modes: tuple[Mode, ...] = ("mse",) if self.variant == "published" else MODES
        held_out: dict[Mode, Float64] = {mode: np.full(len(order), np.nan) for mode in modes}
        rows = np.sort(valid_rows)
        for clip, inside in zip(*np.unique(stacked.clip_V[rows], return_index=True), strict=True):
            count = int(np.searchsorted(stacked.clip_V[rows], clip, side="right")) - int(inside)
            scores = self._score(self._residual(stacked.vectors(rows[inside : inside + count])))
            for mode in modes:
                held_out[mode][order[clip]] = scores[mode]
        return held_out

    def _calibrate(self, stacked: StackedFrames, is_target_V: NDArray[np.bool_], trained: TrainedAutoencoder) -> None:
        """Covariances and thresholds, each in one more pass over the training vectors, shuffled anew."""

        def training_batches(turn: int) -> list[NDArray[np.int64]]:
            return batches(shuffled(trained.train_rows, self.seed, turn), self.batch)

        covariances = domain_covariances(
            ((self._residual(stacked.vectors(rows)), is_target_V[rows]) for rows in training_batches(self.epochs + 1)),
            self.variant,
        )
        # A domain of very few clips has a singular covariance; the other domain's is used for both.
        kept = [c_DD for c_DD in covariances.values() if np.linalg.matrix_rank(c_DD, hermitian=True) == stacked.bands]
        if not kept:
            raise ValueError(f"the clips do not vary in all {stacked.bands} bands: too few or silent clips")
        self.precision_ = np.linalg.inv(np.stack(kept))
        if self.variant == "published":
            batch_rows = training_batches(self.epochs + 2) + batches(trained.valid_rows, self.batch)
            distances = [self._score(self._residual(stacked.vectors(rows)))["mahalanobis"] for rows in batch_rows]
            normal = {"mse": trained.batch_losses, "mahalanobis": np.array(distances)}
        else:
            clips = [self._score(self._residual(stacked.clip(number))) for number in range(len(stacked.bounds) - 1)]
            normal = {mode: np.array([clip[mode] for clip in clips]) for mode in MODES}
        self.thresholds_ = np.array([gamma_threshold(normal[mode], self.quantile) for mode in MODES])


def mean_row_distance(residual_VSD: Float64, precision_KDD: Float64) -> float:
    """Squared Mahalanobis length of the mean row, minimum over the K domains.

    Equals the mean over all entries of R P R^T, as in the published code, with R the rows of all vectors.
    """
    mean_D = residual_VSD.mean(axis=(0, 1))
    return float(min(mean_D @ precision_DD @ mean_D for precision_DD in precision_KDD))


def mean_distance(residual_VSD: Float64, precision_KDD: Float64) -> float:
    """Squared Mahalanobis length of each row, mean over a vector, minimum over the K domains, mean over vectors."""
    distance_KV = [
        ((residual_VSD @ precision_DD) * residual_VSD).sum(axis=2).mean(axis=1) for precision_DD in precision_KDD
    ]
    return float(np.min(distance_KV, axis=0).mean())


def domain_covariances(residuals: Iterable[tuple[Float64, NDArray[np.bool_]]], variant: Variant) -> dict[str, Float64]:
    """(D, D) covariance of the residual rows of `source` and `target`, or of the only one present.

    residuals: (vectors, STACK, D) per mini-batch, with a mask (vectors,) of the target domain.
    """
    scatter: dict[str, Float64] = {}
    total: dict[str, Float64] = {}
    vectors = {"source": 0, "target": 0}
    for residual_VSD, is_target_V in residuals:
        for domain, mask_V in (("source", ~is_target_V), ("target", is_target_V)):
            if not mask_V.any():
                continue
            rows_RD = residual_VSD[mask_V].reshape(-1, residual_VSD.shape[2])
            if variant == "published":
                rows_RD = rows_RD - rows_RD.mean(axis=0)
            scatter[domain] = scatter.get(domain, 0.0) + rows_RD.T @ rows_RD
            total[domain] = total.get(domain, 0.0) + rows_RD.sum(axis=0)
            vectors[domain] += int(mask_V.sum())
    covariances = {}
    for domain in sorted(scatter):
        if variant == "published":
            covariances[domain] = scatter[domain] / max(vectors[domain] - 1, 1)
        else:
            rows = STACK * vectors[domain]
            covariances[domain] = (scatter[domain] - np.outer(total[domain], total[domain]) / rows) / (rows - 1)
    return covariances


def gamma_threshold(scores_N: Float64, quantile: float) -> float:
    """`quantile` of the gamma distribution fitted to `scores_N`, or of the scores if they are constant."""
    if np.ptp(scores_N) > 0:
        try:
            return float(stats.gamma.ppf(quantile, *stats.gamma.fit(scores_N)))
        except stats.FitError:
            pass
    return float(np.quantile(scores_N, quantile))

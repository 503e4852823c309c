"""Embeddings from networks that were trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harken.audio.shape import fit_length, windows
from harken.data.clips import Clip
from harken.encoders.pooling import check_pooling, pool
from harken.encoders.torch_encoder import TorchEncoder
from harken.training.checkpoints import read_checkpoint
from harken.training.models import ASDModel
from harken.training.recordings import Reader
from harken.training.settings import TrainingSpec

Float32 = NDArray[np.float32]


class TrainedEmbedder:
    """Clips -> embeddings of unit length, heard as in training.

    layers: None is the embedding that was trained; else layers of each encoder, joined by `+`, or `all` of its blocks,
    each pooled over frames by `pooling` and brought to unit length, one after the other (NWPU's fusion of layers).

    A clip longer than those of the training passes in windows of that length, of which the last ends with the clip;
    its embedding is the mean of theirs. One clip at a time, so that its embedding depends on no other.
    """

    def __init__(
        self, model: ASDModel, training: TrainingSpec, *, layers: str | None = None, pooling: str = "mean"
    ) -> None:
        """Raises ValueError for layers that an encoder has not, and for an unknown pooling."""
        check_pooling(pooling)
        self.model = model.eval()
        self.pooling = pooling
        self.layers = [_layers(encoder, layers) for encoder in model.encoders] if layers else None
        self.reader = Reader(model.sample_rate, None, training.microphones)
        self.samples = max(round(training.seconds * model.sample_rate), model.min_samples)

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        training: TrainingSpec,
        *,
        layers: str | None = None,
        pooling: str = "mean",
        device: str = "cpu",
    ) -> TrainedEmbedder:
        """Raises HarkenError for a file that is no checkpoint."""
        model = read_checkpoint(checkpoint).model()
        model.to(device)
        return cls(model, training, layers=layers, pooling=pooling)

    def __call__(self, clip: Clip) -> Float32:
        """(D,). Raises AudioError for a recording that cannot be used."""
        wave_T = self.reader(clip)
        if len(wave_T) < self.samples:
            wave_T = fit_length(wave_T, self.samples)
        embed = self._trained if self.layers is None else self._pooled
        parts = windows(len(wave_T), self.samples)
        return np.mean([embed(wave_T[start:stop]) for start, stop in parts], axis=0, dtype=np.float32)

    def _trained(self, wave_T: Float32) -> Float32:
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            embedding_D: Float32 = self.model(torch.from_numpy(wave_T[None]).to(device))[0].float().cpu().numpy()
        return _unit(embedding_D)

    def _pooled(self, wave_T: Float32) -> Float32:
        assert self.layers is not None
        vectors = []
        for encoder, layers in zip(self.model.encoders, self.layers, strict=True):
            found = encoder.encode(wave_T[None], layers=layers)
            frames_LTD = found.features_BLTD[0, :, : int(found.lengths_B[0])]
            vectors += [
                _unit(pool(x_TD, self.pooling, cls_tokens=encoder.cls_tokens, patch_bands=encoder.patch_bands))
                for x_TD in frames_LTD
            ]
        return _unit(np.concatenate(vectors))


def _layers(encoder: TorchEncoder, layers: str) -> tuple[str, ...]:
    names = tuple(name for name in encoder.layers if name.startswith("block_")) if layers == "all" else ()
    names = names or tuple(layers.split("+"))
    unknown = [name for name in names if name not in encoder.layers]
    if unknown:
        raise ValueError(f"{encoder.name} has no layer {', '.join(unknown)}; there are {', '.join(encoder.layers)}")
    return names


def _unit(vector_D: Float32) -> Float32:
    length = float(np.linalg.norm(vector_D))
    return vector_D / np.float32(length) if length > 0 else vector_D

"""What the neural encoders share: batches of clips of different lengths through one torch module."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harken.encoders.base import Embedding, Encoder

Float32 = NDArray[np.float32]

#: clips of one length that pass through the network together on an accelerator
_BATCH = 32


class TorchEncoder(Encoder):
    """An encoder around `module`: (clips, samples) tensor and layer names -> one (clips, frames, D) tensor a layer.

    `module` is gradient-friendly and may be trained; `encode` runs it without gradients, clip by clip on a CPU: no
    slower there, and kernels that depend on the batch's shape cannot change a clip's bits.
    """

    module: nn.Module

    @abstractmethod
    def frame_count(self, samples: int, layer: str) -> int:
        """Valid frames of `layer` for a clip of `samples`."""

    @abstractmethod
    def passes(self, samples: int) -> list[tuple[int, int]]:
        """Start and stop of the windows in which a clip of `samples` passes through, so that memory is bounded.

        Frames of successive windows follow each other.
        """

    def encode(
        self,
        waveform_BT: Float32,
        lengths_B: NDArray[np.int64] | None = None,
        layers: tuple[str, ...] | None = None,
    ) -> Embedding:
        """See `Encoder.encode`. Raises ValueError also for layers of different shape."""
        layers = layers or (self.default_layer,)
        unknown = [layer for layer in layers if layer not in self.layers]
        if unknown:
            raise ValueError(f"{self.name} has no layer {', '.join(unknown)}; there are {', '.join(self.layers)}")
        clips, samples = waveform_BT.shape
        lengths = np.full(clips, samples) if lengths_B is None else np.asarray(lengths_B)
        if clips == 0 or lengths.min() < self.min_samples:
            shortest = lengths.min(initial=samples)
            raise ValueError(f"{self.name} needs {self.min_samples} samples or more, not {shortest}")
        frames = max(self.frame_count(int(lengths.max()), layer) for layer in layers)
        step = 1 if self._device.type == "cpu" else _BATCH
        features_BLTD: Float32 | None = None
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            for some in np.split(rows, range(step, len(rows), step)):
                found_BLTD = self._encode_equal(waveform_BT[some, :length], layers)
                if features_BLTD is None:
                    shape = (clips, len(layers), frames, found_BLTD.shape[3])
                    features_BLTD = np.zeros(shape, dtype=np.float32)
                features_BLTD[some, :, : found_BLTD.shape[2]] = found_BLTD
        assert features_BLTD is not None
        valid_B = np.array([self.frame_count(int(n), layers[0]) for n in lengths], dtype=np.int64)
        return Embedding(features_BLTD, valid_B, layers)

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _encode_equal(self, waveform_BT: Float32, layers: tuple[str, ...]) -> Float32:
        """Clips without padding -> (clips, layers, frames, dimensions)."""
        parts = []
        self.module.eval()
        with torch.inference_mode():
            for start, stop in self.passes(waveform_BT.shape[1]):
                wave_BT = torch.from_numpy(np.ascontiguousarray(waveform_BT[:, start:stop], dtype=np.float32))
                outputs = self.module(wave_BT.to(self._device), layers)
                if len({output.shape for output in outputs}) > 1:
                    raise ValueError(f"layers {', '.join(layers)} differ in shape; ask for them one by one")
                parts.append(torch.stack(outputs, dim=1).cpu())
        return np.asarray(torch.cat(parts, dim=2).numpy())

"""What encoders of one layer share that hear clips one by one: layers, lengths, padding."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from harken.encoders.base import Embedding, Encoder, padded, valid_lengths

Float32 = NDArray[np.float32]


class FrameEncoder(Encoder):
    """An encoder with one layer. A subclass says what `Encoder` asks for, but writes `frames` in place of `encode`."""

    @abstractmethod
    def frames(self, samples_S: Float32) -> Float32:
        """(samples,) at `sample_rate`, at least `min_samples` of them -> (frames, dimensions)."""

    def encode(
        self,
        waveform_BS: Float32,
        lengths_B: NDArray[np.int64] | None = None,
        layers: tuple[str, ...] | None = None,
    ) -> Embedding:
        """See `Encoder.encode`."""
        if layers is not None and layers != self.layers:
            raise ValueError(f"{self.name} has the layer {self.layers[0]!r}, not {', '.join(layers)}")
        lengths_B = valid_lengths(self.name, waveform_BS, lengths_B, self.min_samples)
        # Each clip at its own length: the last frames may reach beyond its end.
        features = [self.frames(clip_S[:length]) for clip_S, length in zip(waveform_BS, lengths_B, strict=True)]
        return padded(features, self.layers[0])

"""The log-mel of the DCASE baselines over time: an encoder without weights, torch or download."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harken.audio.log_mel import frame_count, log_mel
from harken.encoders.base import Embedding, Encoder

Float32 = NDArray[np.float32]


class LogMel(Encoder):
    """librosa's default log-mel in dB (see `audio.log_mel`): 1024-sample frames every 512 samples, 128 bands.

    Layer `log_mel` has D = n_mels. It is the input of the DCASE Task 2 autoencoder (Harada et al. 2023, section
    III); as an embedding of its own it serves best with its deviation over time.
    """

    name: ClassVar[str] = "log_mel"
    default_pooling: ClassVar[str] = "mean+std"

    def __init__(
        self, sample_rate: int = 16_000, n_fft: int = 1024, hop: int = 512, n_mels: int = 128, power: float = 2.0
    ) -> None:
        if sample_rate < 1_000 or n_fft < 16 or not 0 < hop <= n_fft or n_mels < 1 or power <= 0:
            raise ValueError("log_mel needs at least 1000 Hz, 16-sample frames, 0 < hop <= n_fft, a band and power > 0")
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop = hop
        self.n_mels = n_mels
        self.power = power
        self.min_samples = n_fft
        self.layers = ("log_mel",)
        self.default_layer = "log_mel"

    def config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("sample_rate", "n_fft", "hop", "n_mels", "power")}

    def encode(
        self,
        waveform_BT: Float32,
        lengths_B: NDArray[np.int64] | None = None,
        layers: tuple[str, ...] | None = None,
    ) -> Embedding:
        """See `Encoder.encode`; the only layer is `log_mel`."""
        if layers is not None and layers != self.layers:
            raise ValueError(f"log_mel has the layer 'log_mel', not {', '.join(layers)}")
        clips, samples = waveform_BT.shape
        lengths = np.full(clips, samples) if lengths_B is None else np.asarray(lengths_B)
        shortest = int(lengths.min(initial=samples))
        if shortest < self.min_samples:
            raise ValueError(f"log_mel needs {self.min_samples} samples, not {shortest}")
        features_BLTD = np.zeros((clips, 1, frame_count(samples, self.hop), self.n_mels), dtype=np.float32)
        # Each clip at its own length: the last frames reach beyond its end.
        for row, (clip_T, length) in enumerate(zip(waveform_BT, lengths, strict=True)):
            found_TD = log_mel(clip_T[:length], self.sample_rate, self.n_fft, self.hop, self.n_mels, self.power)
            features_BLTD[row, 0, : len(found_TD)] = found_TD
        frames = [frame_count(int(n), self.hop) for n in lengths]
        return Embedding(features_BLTD, np.array(frames, dtype=np.int64), self.layers)

"""The log-mel of the DCASE baselines over time: an encoder without weights, torch or download."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harken.audio.log_mel import log_mel
from harken.encoders.frame_encoder import FrameEncoder
from harken.encoders.registry import register_encoder

Float32 = NDArray[np.float32]


@register_encoder("log_mel")
class LogMel(FrameEncoder):
    """librosa's default log-mel in dB (see `audio.log_mel`): 1024-sample frames every 512 samples, 128 bands.

    Layer `log_mel` has D = n_mels. It is the input of the DCASE Task 2 autoencoder (Harada et al. 2023, section
    III); as an embedding of its own it serves best with its deviation over time.
    """

    any_rate: ClassVar[bool] = True
    default_pooling = "mean+std"

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

    def frames(self, samples_S: Float32) -> Float32:
        """(samples,) -> (frames, n_mels) in dB."""
        return log_mel(samples_S, self.sample_rate, self.n_fft, self.hop, self.n_mels, self.power)

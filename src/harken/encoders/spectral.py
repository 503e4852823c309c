"""Log-mel bands over time: an encoder without weights, torch or download."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harken.audio.stft import frame_count, mel_bands, power_spectrogram
from harken.encoders.base import Embedding, Encoder, valid_lengths
from harken.encoders.registry import register_encoder

Float32 = NDArray[np.float32]


#: sampling rate in Hz that is still listened to
LOWEST_RATE = 100


@register_encoder("spectral")
class Spectral(Encoder):
    """64 ms Hann frames every 32 ms, `bands` mel bands up to half the sampling rate, in dB.

    Below 1000 Hz, the rates of slow vibration, frames have 128 samples and by default as many bands as frequencies.

    Layer `logmel` has D = bands: each dimension is one frequency band, so whatever is pooled over time keeps
    its frequency resolution. Pooled with `mean+std+variation` this is the default of Harken.
    """

    any_rate: ClassVar[bool] = True
    default_pooling = "mean+std+variation"

    #: added to the band power; 90 dB below full scale, about the noise floor of 16-bit recordings
    FLOOR = 1e-9

    def __init__(self, sample_rate: int = 16_000, bands: int | None = None) -> None:
        # 64 ms, rounded to a power of two: 1024 samples at 16 kHz.
        self.n_fft = 1 << max(6, round(np.log2(0.064 * sample_rate))) if sample_rate >= 1_000 else 128
        if bands is None:
            bands = 128 if sample_rate >= 1_000 else self.n_fft // 2
        if sample_rate < LOWEST_RATE or bands < 4:
            raise ValueError(f"spectral needs at least {LOWEST_RATE} Hz and 4 bands")
        self.sample_rate = sample_rate
        self.bands = bands
        self.hop = self.n_fft // 2
        self.min_samples = self.n_fft
        self.layers = ("logmel",)
        self.default_layer = "logmel"
        self.filters_FM, self.centres_hz_M = mel_bands(sample_rate, self.n_fft, bands, 0.0, sample_rate / 2)
        # Power of a full-scale sine in its bin is (sum of window / 2)^2: 0 dB is full scale.
        self._scale = np.float32((0.25 * self.n_fft) ** -2)

    def config(self) -> dict[str, Any]:
        return {"sample_rate": self.sample_rate, "bands": self.bands}

    def log_mel(self, samples_S: Float32) -> Float32:
        """(samples,) -> (frames, bands) in dB relative to a full-scale sine."""
        power_TF = power_spectrogram(samples_S, self.n_fft, self.hop)
        band_TM = power_TF @ self.filters_FM
        band_TM *= self._scale
        band_TM += np.float32(self.FLOOR)
        np.log10(band_TM, out=band_TM)
        band_TM *= np.float32(10)
        return np.asarray(band_TM, dtype=np.float32)

    def encode(
        self,
        waveform_BS: Float32,
        lengths_B: NDArray[np.int64] | None = None,
        layers: tuple[str, ...] | None = None,
    ) -> Embedding:
        """See `Encoder.encode`; the only layer is `logmel`."""
        if layers is not None and layers != self.layers:
            raise ValueError(f"spectral has the layer 'logmel', not {', '.join(layers)}")
        lengths_B = valid_lengths(self.name, waveform_BS, lengths_B, self.min_samples)
        features = np.stack([self.log_mel(clip) for clip in waveform_BS])[:, None]
        frames = [frame_count(int(n), self.n_fft, self.hop) for n in lengths_B]
        return Embedding(features, np.array(frames, dtype=np.int64), self.layers)

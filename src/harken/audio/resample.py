"""Sampling-rate conversion (soxr, high quality)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import soxr
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def resample(samples_CS: Float32, source_rate: int, target_rate: int) -> Float32:
    """(channels, samples) at `source_rate` Hz -> (channels, about samples * target / source) float32.

    Raises ValueError for rates that are not positive.
    """
    if source_rate <= 0 or target_rate <= 0:
        raise ValueError("sampling rates must be positive")
    if source_rate == target_rate:
        return samples_CS
    channels = [soxr.resample(channel, source_rate, target_rate, quality="HQ") for channel in samples_CS]
    return channels[0][None] if len(channels) == 1 else np.stack(channels)


def lower_rate(samples_CS: Float32, source_rate: int, target_rate: int) -> Float32:
    """(channels, samples) -> (channels, about samples * target / source) float32, as if recorded at that rate.

    Converters have level bands up to half the rate: their filters pass some of what lies just above, where
    `resample` takes off all from 0.94 of it on. Raises ValueError unless 0 < target_rate < source_rate.
    """
    if not 0 < target_rate < source_rate:
        raise ValueError("the target rate must be lower than the source rate")
    twice_CS = resample(samples_CS, source_rate, 2 * target_rate)
    # A half-band filter: beside its centre, only odd taps are not zero.
    even_CS, odd_CS = twice_CS[:, ::2], twice_CS[:, 1::2]
    odd_taps = _odd_taps()
    count, centre = even_CS.shape[1], len(odd_taps) // 2
    lowered = [
        np.float32(0.5) * even_S + np.convolve(odd_S, odd_taps)[centre - 1 :][:count]
        for even_S, odd_S in zip(even_CS, odd_CS, strict=True)
    ]
    return np.stack(lowered)


@lru_cache(maxsize=1)
def _odd_taps() -> Float32:
    """Of a low-pass filter to a quarter of the rate: 0.1 dB at 0.975 of that, 80 dB at 1.025."""
    place = np.arange(-200, 201)
    taps = 0.5 * np.sinc(0.5 * place) * np.kaiser(401, 8.0)
    return np.asarray((taps / taps.sum())[1::2], dtype=np.float32)

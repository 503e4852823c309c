"""Sampling-rate conversion (soxr, high quality)."""

from __future__ import annotations

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

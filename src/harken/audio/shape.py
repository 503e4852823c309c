"""Waveforms of fixed length: crop, pad, tile, windows."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def fit_length(samples_CS: Float32, length: int, *, short: Literal["pad", "tile"] = "tile", start: int = 0) -> Float32:
    """(channels, samples) -> (channels, length).

    A longer waveform is cropped from sample `start` on; a shorter one is repeated from its beginning
    (`tile`, which adds no artificial silence) or padded with zeros at its end (`pad`). Raises ValueError for empty
    waveforms and invalid `length` or `start`.
    """
    samples = samples_CS.shape[-1]
    if length <= 0 or samples == 0:
        raise ValueError("lengths must be positive")
    if samples >= length:
        if not 0 <= start <= samples - length:
            raise ValueError(f"start {start} leaves less than {length} of {samples} samples")
        return samples_CS[..., start : start + length]
    if short == "pad":
        return np.pad(samples_CS, [(0, 0)] * (samples_CS.ndim - 1) + [(0, length - samples)])
    repeats = -(-length // samples)
    return np.tile(samples_CS, repeats)[..., :length]


def windows(samples: int, span: int) -> list[tuple[int, int]]:
    """Start and stop of windows of `span` that cover `samples`; the last may overlap the previous one.

    Raises ValueError for fewer samples than one window.
    """
    if not 1 <= span <= samples:
        raise ValueError(f"a window must have 1 to {samples} samples, not {span}")
    starts = list(range(0, samples - span + 1, span))
    if starts[-1] + span < samples:
        starts.append(samples - span)
    return [(start, start + span) for start in starts]

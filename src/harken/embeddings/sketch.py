"""A small picture of how a recording sounds: its spectrogram in a hundred columns of half-decibel steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harken.embeddings.groups import group_sums

Float32 = NDArray[np.float32]
Sketch = NDArray[np.uint8]

COLUMNS = 100
#: a step, and the level of step 0
STEP_DB, _LOWEST_DB = 0.5, -110.0


def make_sketch(log_mel_TM: Float32, columns: int = COLUMNS) -> Sketch:
    """(frames, bands) in dB -> (bands, at most `columns`) uint8; power is averaged within a column."""
    frames = len(log_mel_TM)
    edges = np.linspace(0, frames, min(columns, frames) + 1).round().astype(int)
    level_TM = log_mel_TM.astype(np.float64)
    # The exponential takes a quarter of the time, and is as exact to 3e-15. The level of a frame by itself may lie
    # between two steps, where that decides.
    power_TM = np.exp(level_TM * (np.log(10) / 10)) if frames >= 2 * columns else 10.0 ** (level_TM / 10)
    mean_CM = group_sums(power_TM, edges) / np.diff(edges)[:, None]
    steps = (10 * np.log10(np.maximum(mean_CM, 1e-30)) - _LOWEST_DB) / STEP_DB
    return np.ascontiguousarray(np.clip(np.rint(steps), 0, 255).astype(np.uint8).T)


def sketch_steps(level_BC: NDArray[np.floating]) -> NDArray[np.int16]:
    """Inverse of `sketch_db`: dB -> steps, in numbers that may be subtracted."""
    return np.rint((level_BC - _LOWEST_DB) / STEP_DB).astype(np.int16)


def sketch_db(sketch_BC: Sketch) -> Float32:
    """(bands, columns) uint8 -> dB."""
    return (sketch_BC.astype(np.float32) * STEP_DB + _LOWEST_DB).astype(np.float32)

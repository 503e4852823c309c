"""Short-time levels of a recording: how far each band rises above its own median, for moments of several lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: lengths of the moments in seconds: one frame (a click), a knock with its reverberation, a squeal
MOMENTS_S = (0.0, 0.25, 1.0)
#: numbers of groups of neighbouring bands, from narrow (tones) to all (impacts)
GROUPS = (32, 8, 1)


def short_time_levels(log_mel_TM: Float32, hop_s: float) -> Float32:
    """(frames, bands) in dB, every `hop_s` seconds -> (D,) float32 in dB: the loudest moments of each group of bands.

    With L_tg the level of narrow group g in frame t (power averaged over its bands), the value of a moment length w is

        max_t  mean_{t <= u < t + w}  L_ug - median_u L_ug,

    and for wider groups the mean over their narrow ones is taken before the maximum. Levels are relative to the
    group's own median, so a loud event does not change the others through a level that is normalised over the clip.
    D = sum(GROUPS) * len(MOMENTS_S), moments outermost; fewer for fewer than `GROUPS[0]` bands.
    """
    frames, bands = log_mel_TM.shape
    # Single precision: the exponential is a tenth of the time, and its error far below a hundredth of a decibel.
    power_TM = np.exp(log_mel_TM * np.float32(np.log(10) / 10))
    level_TG = 10 * np.log10(np.maximum(_grouped(power_TM, min(GROUPS[0], bands)), 1e-30))
    rise_TG = level_TG - np.median(level_TG, axis=0)
    sums_TG = np.concatenate([np.zeros((1, rise_TG.shape[1])), np.cumsum(rise_TG, axis=0)])
    values = []
    for seconds in MOMENTS_S:
        length = min(max(1, round(seconds / hop_s)), frames)
        moment_TG = (sums_TG[length:] - sums_TG[:-length]) / length
        values += [_grouped(moment_TG, min(count, rise_TG.shape[1])).max(axis=0) for count in GROUPS]
    return np.concatenate(values).astype(np.float32)


def _grouped(values_TM: NDArray[np.floating], groups: int) -> Float64:
    """(frames, bands) -> (frames, groups): means over neighbouring bands."""
    edges = np.linspace(0, values_TM.shape[1], groups + 1).round().astype(int)
    return np.asarray(np.add.reduceat(values_TM.astype(np.float64, copy=False), edges[:-1], axis=1) / np.diff(edges))

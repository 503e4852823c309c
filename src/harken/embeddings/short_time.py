"""Short-time levels of a recording: how far each band rises above its own median, for moments of several lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harken.embeddings.groups import group_sums

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
    # Time last, so that what is done along it is done side by side in memory.
    power_MT = np.ascontiguousarray(power_TM.T).astype(np.float64)
    level_GT = 10 * np.log10(np.maximum(_grouped(power_MT, min(GROUPS[0], bands)), 1e-30))
    rise_GT = level_GT - _medians(level_GT)[:, None]
    sums_GT = np.concatenate([np.zeros((len(rise_GT), 1)), np.cumsum(rise_GT, axis=1)], axis=1)
    values = []
    for seconds in MOMENTS_S:
        length = min(max(1, round(seconds / hop_s)), frames)
        moment_GT = (sums_GT[:, length:] - sums_GT[:, :-length]) / length
        values += [_grouped(moment_GT, min(count, len(rise_GT))).max(axis=1) for count in GROUPS]
    return np.concatenate(values).astype(np.float32)


def short_time_width(bands: int) -> int:
    """D of `short_time_levels` for so many bands."""
    return len(MOMENTS_S) * sum(min(groups, bands) for groups in GROUPS)


def _grouped(values_MT: Float64, groups: int) -> Float64:
    """(bands, frames) -> (groups, frames): means over neighbouring bands."""
    if groups == len(values_MT):
        return values_MT
    edges = np.linspace(0, len(values_MT), groups + 1).round().astype(int)
    return group_sums(values_MT, edges) / np.diff(edges)[:, None]


def _medians(levels_GT: Float64) -> Float64:
    """Of each row: as `np.median`, which takes twice as long."""
    sorted_GT = np.sort(levels_GT, axis=1)
    middle = levels_GT.shape[1] // 2
    if levels_GT.shape[1] % 2:
        return np.asarray(sorted_GT[:, middle])
    return np.asarray((sorted_GT[:, middle - 1] + sorted_GT[:, middle]) / 2)

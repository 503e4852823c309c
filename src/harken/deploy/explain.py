"""Why a recording sounds different: where in time and frequency, by how much, against which normal recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, uniform_filter

Float32 = NDArray[np.float32]

#: a change below this is not told apart from the recording's own fluctuation
_LEAST_DB = 3.0


@dataclass(frozen=True)
class Explanation:
    """What differs from the nearest normal recording.

    sentence: for people. heatmap_BC: (bands, columns) dB beyond the range that each band keeps within
        the nearest normal recording; > 0 more energy, < 0 less. low_hz, high_hz, start_s, end_s: the region that
        the sentence speaks of; change_db: its mean difference in level. None where nothing stands out.
    """

    sentence: str
    heatmap_BC: Float32
    nearest: str
    low_hz: float | None = None
    high_hz: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    change_db: float | None = None


def explain(
    clip_BC: Float32,
    normal_BC: Float32,
    *,
    centres_hz_B: Float32,
    seconds: float,
    nearest: str,
    anomalous: bool,
) -> Explanation:
    """Compare two spectrograms (bands, columns) in dB, of a clip of `seconds` and its nearest normal recording."""
    low_B1, high_B1 = np.percentile(normal_BC, [5, 95], axis=1, keepdims=True)
    more_BC = np.maximum(clip_BC - high_B1, 0)
    less_BC = np.maximum(low_B1 - clip_BC, 0)
    heatmap_BC = (more_BC - less_BC).astype(np.float32)
    smooth_BC = uniform_filter(heatmap_BC, size=3, mode="nearest")
    region_BC = _strongest_region(smooth_BC)
    if region_BC is None:
        return Explanation(_faint(clip_BC, normal_BC, centres_hz_B, nearest, anomalous), heatmap_BC, nearest)
    weight_BC = np.where(region_BC, np.abs(smooth_BC), 0)
    bands = _core(weight_BC.sum(axis=1))
    columns = _core(weight_BC.sum(axis=0))
    low_hz, high_hz = _edges(centres_hz_B, bands)
    column_s = seconds / clip_BC.shape[1]
    start_s, end_s = columns.start * column_s, columns.stop * column_s
    typical_B = np.median(normal_BC, axis=1)
    change_db = float(np.mean((clip_BC - typical_B[:, None])[bands, columns]))
    share = (end_s - start_s) / seconds
    when = "throughout" if share > 0.7 else f"from {start_s:.1f} s"
    if share <= 0.3:
        when = f"at {start_s:.1f}-{end_s:.1f} s"
    what = "new energy" if change_db > 0 else "energy missing"
    side = "over" if change_db > 0 else "under"
    sentence = (
        f"{what} {_hz(low_hz, high_hz)} {when}, {change_db:+.0f} dB {side} the nearest normal recording {nearest}"
    )
    if not anomalous:
        sentence = f"within normal; largest difference: {sentence}"
    return Explanation(sentence, heatmap_BC, nearest, low_hz, high_hz, start_s, end_s, change_db)


def _strongest_region(smooth_BC: Float32) -> NDArray[np.bool_] | None:
    """The connected region of one sign above the least change that gathers the most decibels."""
    best: NDArray[np.bool_] | None = None
    most = 0.0
    for sign in (1, -1):
        regions_BC, count = label(sign * smooth_BC > _LEAST_DB)
        if not count:
            continue
        sums = np.bincount(regions_BC.ravel(), weights=np.abs(smooth_BC).ravel())
        sums[0] = 0
        if sums.max() > most:
            most = float(sums.max())
            best = regions_BC == int(sums.argmax())
    return best


def _core(weights: Float32) -> slice:
    """The shortest contiguous range around the peak that holds 90 % of the weight."""
    start = stop = int(np.argmax(weights))
    stop += 1
    total, inside = float(weights.sum()), float(weights[start])
    while inside < 0.9 * total:
        left = float(weights[start - 1]) if start > 0 else -1.0
        right = float(weights[stop]) if stop < len(weights) else -1.0
        if left < 0 and right < 0:
            break
        if left >= right:
            start -= 1
            inside += left
        else:
            inside += right
            stop += 1
    return slice(start, stop)


def _faint(clip_BC: Float32, normal_BC: Float32, centres_hz_B: Float32, nearest: str, anomalous: bool) -> str:
    """A sentence for differences that no single time-frequency region shows: level or fluctuation of a band."""
    if not anomalous:
        return f"sounds like the normal recording {nearest}"
    level_B = clip_BC.mean(axis=1) - normal_BC.mean(axis=1)
    motion_B = clip_BC.std(axis=1) - normal_BC.std(axis=1)
    # Half an octave or so of neighbouring bands must agree before a band is blamed.
    level_B, motion_B = uniform_filter(level_B, 7), uniform_filter(motion_B, 7)
    band = int(np.argmax(np.maximum(np.abs(level_B), 2 * np.abs(motion_B))))
    around = slice(max(0, band - 3), min(len(clip_BC), band + 4))
    where = _hz(*_edges(centres_hz_B, around))
    if abs(level_B[band]) >= 2 * abs(motion_B[band]):
        what = f"a steady {level_B[band]:+.1f} dB at {where}"
    else:
        what = f"{'more' if motion_B[band] > 0 else 'less'} fluctuation at {where} ({motion_B[band]:+.1f} dB)"
    return (
        f"no single event stands out; the largest difference is {what} against the nearest normal recording {nearest}"
    )


def _edges(centres_hz_B: Float32, bands: slice) -> tuple[float, float]:
    """Frequencies halfway to the neighbouring bands."""
    padded = np.concatenate([[0.0], centres_hz_B, [centres_hz_B[-1] * 1.02]])
    return float(padded[bands.start : bands.start + 2].mean()), float(padded[bands.stop : bands.stop + 2].mean())


def _hz(low: float, high: float) -> str:
    if high < 1000:
        return f"{low:.0f}-{high:.0f} Hz"
    return f"{low / 1000:.1f}-{high / 1000:.1f} kHz"

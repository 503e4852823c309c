"""Why a recording sounds different: where in time and frequency, by how much, against which normal recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

Float32 = NDArray[np.float32]

#: a change below this is not told apart from the recording's own fluctuation
_LEAST_DB = 3.0


@dataclass(frozen=True, eq=False)
class Explanation:
    """What differs from the nearest normal recording.

    sentence: for people. heatmap_BC: (bands, columns) dB, see `difference`. low_hz, high_hz, start_s, end_s: the region
        that the sentence speaks of; change_db: its mean difference in level. None where nothing stands out.
    """

    sentence: str
    heatmap_BC: Float32
    nearest: str
    low_hz: float | None = None
    high_hz: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    change_db: float | None = None


def difference(clip_BC: Float32, normal_BC: Float32) -> Float32:
    """(bands, columns) dB by which each moment differs from the like moment of the normal recording in that band.

    Machines do not run in step, so columns cannot be compared as they stand. In each band, the loudest moment is
    compared with the loudest, the median with the median, the quietest with the quietest: a hiss between two
    strokes shows there although the strokes are louder.
    """
    columns = clip_BC.shape[1]
    rank_BC = np.argsort(np.argsort(clip_BC, axis=1, kind="stable"), axis=1, kind="stable")
    # Quantile of each rank in the normal recording, which may have another number of columns.
    place_C = (np.arange(columns) + 0.5) / columns * normal_BC.shape[1] - 0.5
    lower_C = np.clip(np.floor(place_C).astype(int), 0, normal_BC.shape[1] - 1)
    upper_C = np.minimum(lower_C + 1, normal_BC.shape[1] - 1)
    share_C = np.clip(place_C - lower_C, 0, 1)
    sorted_BC = np.sort(normal_BC, axis=1)
    quantile_BC = (1 - share_C) * sorted_BC[:, lower_C] + share_C * sorted_BC[:, upper_C]
    return (clip_BC - np.take_along_axis(quantile_BC, rank_BC, axis=1)).astype(np.float32)


def explain(
    clip_BC: Float32, normal_BC: Float32, *, centres_hz_B: Float32, seconds: float, nearest: str, anomalous: bool
) -> Explanation:
    """Compare two spectrograms (bands, columns) in dB, of a clip of `seconds` and its nearest normal recording."""
    heatmap_BC = difference(clip_BC, normal_BC)
    smooth_BC = uniform_filter(heatmap_BC, size=3, mode="nearest")
    excess_BC = np.stack([np.maximum(sign * smooth_BC - _LEAST_DB, 0) for sign in (1, -1)])
    sign = int(np.argmax(excess_BC.sum(axis=(1, 2))))
    if not excess_BC[sign].any():
        return Explanation(_faint(clip_BC, normal_BC, centres_hz_B, nearest, anomalous), heatmap_BC, nearest)
    bands = _around_peak(excess_BC[sign].sum(axis=1))
    strength_C = (1, -1)[sign] * heatmap_BC[bands].mean(axis=0)
    active_C = strength_C > max(_LEAST_DB / 2, 0.3 * float(strength_C.max()))
    runs = _runs(active_C)
    low_hz, high_hz = _edges(centres_hz_B, bands)
    column_s = seconds / clip_BC.shape[1]
    start_s, end_s = runs[0][0] * column_s, runs[-1][1] * column_s
    change_db = float(heatmap_BC[bands][:, active_C].mean())
    if abs(change_db) < _LEAST_DB / 2:
        return Explanation(_faint(clip_BC, normal_BC, centres_hz_B, nearest, anomalous), heatmap_BC, nearest)
    what, side = (("new energy", "over"), ("energy missing", "under"))[sign]
    sentence = (
        f"{what} {_hz(low_hz, high_hz)} {_when(runs, column_s, seconds)}, "
        f"{change_db:+.0f} dB {side} the nearest normal recording {nearest}"
    )
    if not anomalous:
        sentence = f"within normal; largest difference: {sentence}"
    return Explanation(sentence, heatmap_BC, nearest, low_hz, high_hz, start_s, end_s, change_db)


def _around_peak(weights_B: Float32) -> slice:
    """The contiguous bands around the strongest one that reach a quarter of its weight."""
    above = _runs(weights_B >= 0.25 * weights_B.max())
    peak = int(np.argmax(weights_B))
    return next(slice(start, stop) for start, stop in above if start <= peak < stop)


def _runs(marked: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of each run of marked places."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _when(runs: list[tuple[int, int]], column_s: float, seconds: float) -> str:
    """When a region is active, in words."""
    start_s, end_s = runs[0][0] * column_s, runs[-1][1] * column_s
    active = sum(stop - start for start, stop in runs) * column_s
    if active > 0.7 * seconds:
        return "throughout"
    if len(runs) > 2:
        return f"{len(runs)} times, first at {start_s:.1f} s"
    return f"from {start_s:.1f} s" if end_s > 0.95 * seconds else f"at {start_s:.1f}-{end_s:.1f} s"


def _faint(clip_BC: Float32, normal_BC: Float32, centres_hz_B: Float32, nearest: str, anomalous: bool) -> str:
    """A sentence for differences that no single time-frequency region shows: level or fluctuation of a band."""
    if not anomalous:
        return f"sounds like the normal recording {nearest}"
    level_B = clip_BC.mean(axis=1) - normal_BC.mean(axis=1)
    motion_B = clip_BC.std(axis=1) - normal_BC.std(axis=1)
    # Half an octave or so of neighbouring bands must agree before a band is located_errors.
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
    padded = np.concatenate([[0.0], centres_hz_B, centres_hz_B[-1:]])
    return float(padded[bands.start : bands.start + 2].mean()), float(padded[bands.stop : bands.stop + 2].mean())


def _hz(low: float, high: float) -> str:
    if high < 1000:
        return f"{low:.0f}-{high:.0f} Hz"
    return f"{low / 1000:.1f}-{high / 1000:.1f} kHz"

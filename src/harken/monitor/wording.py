"""The sentence about a difference between a recording and the normal ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harken.monitor.envelope import FAINT_BANDS, Envelope, smoothed

Float32 = NDArray[np.float32]

#: a tone is at least so long; its highest frequency is at most so many times its lowest, or it lies in so few bands
_TONE_S, _TONE_RATIO, _TONE_BANDS = 0.25, 1.1, 4
#: a knock is at most so long, and its highest frequency at least so many times its lowest
_KNOCK_S, _KNOCK_RATIO = 0.35, 2.0


@dataclass(frozen=True)
class Region:
    """Where a recording is unlike the normal ones.

    low_hz, high_hz, bands: its edges, and the number of bands between; peak_hz: mean over its bands, by their power.
    start_s, end_s: of its strongest moment; runs_s: start and end of all. change_db: how far its strongest band is
    above the normal recordings, or below if negative. unlike_any: whether beyond any of their moments, and not only
    beyond like moments. weight: by which regions of a recording are compared.
    """

    low_hz: float
    high_hz: float
    peak_hz: float
    bands: int
    start_s: float
    end_s: float
    runs_s: tuple[tuple[float, float], ...]
    change_db: float
    unlike_any: bool
    weight: float


def later(region: Region, seconds: float) -> Region:
    """The region of a segment, with times in the recording in which the segment begins at `seconds`."""
    runs_s = tuple((start + seconds, end + seconds) for start, end in region.runs_s)
    return replace(region, start_s=region.start_s + seconds, end_s=region.end_s + seconds, runs_s=runs_s)


def differs(region: Region, seconds: float, normals: int) -> str:
    """What is new or missing, when, and by how much: of a recording of `seconds`, against `normals` recordings."""
    longest_s = max(end - start for start, end in region.runs_s)
    times = len(region.runs_s)
    where = _hz(region.low_hz, region.high_hz)
    narrow = region.bands <= _TONE_BANDS or region.high_hz <= _TONE_RATIO * region.low_hz
    if region.change_db < 0:
        change = f"energy missing {where}"
    elif narrow and longest_s >= _TONE_S:
        change = f"new tone near {_one_hz(region.peak_hz)}"
    elif longest_s <= _KNOCK_S and region.high_hz > _KNOCK_RATIO * region.low_hz:
        change = f"new knock {where}"
    else:
        change = f"new energy {where}"
    side = "below" if region.change_db < 0 else "above"
    compared = "any of" if region.unlike_any else "any like moment of"
    height = f"{abs(region.change_db):.0f} dB {side} {compared} {normals} normal recordings"
    return f"{change} {_when(region, times, seconds)}, {height}"


def _when(region: Region, times: int, seconds: float) -> str:
    first_s, last_s = region.runs_s[0], region.runs_s[-1]
    if sum(end - start for start, end in region.runs_s) > 0.7 * seconds:
        return "throughout"
    if times > 2:
        return f"{times} times, first at {first_s[0]:.1f} s"
    if times == 2:
        return f"twice, at {first_s[0]:.1f} and {last_s[0]:.1f} s"
    if region.end_s - region.start_s <= _TONE_S:
        return f"at {region.start_s:.1f} s"
    return f"from {region.start_s:.1f} to {region.end_s:.1f} s"


def faint(clip_BC: Float32, envelope: Envelope, centres_hz_B: Float32) -> str:
    """For a recording without a region that stands out: the rarest level or fluctuation of neighbouring bands.

    clip_BC: (bands, columns) in dB.
    """
    shift_db = envelope.common_shift(np.sort(clip_BC, axis=1))
    values = {
        "level": (clip_BC.mean(axis=1) - shift_db, envelope.usual_level_2B),
        "motion": (clip_BC.std(axis=1), envelope.usual_motion_2B),
    }
    rarest, change_db, kind, band = -np.inf, 0.0, "", 0
    for name, (clip_B, (mean_B, deviation_B)) in values.items():
        away_B = smoothed(clip_B) - mean_B
        rare_B = np.abs(away_B) / (deviation_B + 0.1)
        if rare_B.max() > rarest:
            band = int(np.argmax(rare_B))
            rarest, change_db, kind = float(rare_B[band]), float(away_B[band]), name
    half = FAINT_BANDS // 2
    where = _hz(*band_edges(centres_hz_B, slice(max(0, band - half), min(len(clip_BC), band + half + 1))))
    if kind == "level":
        change = f"a steady {change_db:+.1f} dB at {where}"
    else:
        change = f"{'more' if change_db > 0 else 'less'} fluctuation at {where} ({change_db:+.1f} dB)"
    return (
        f"no sound or gap stands out; the rarest difference is {change} against the mean of {envelope.count} "
        "normal recordings"
    )


def band_edges(centres_hz_B: Float32, bands: slice) -> tuple[float, float]:
    """Frequencies halfway to the neighbouring bands."""
    padded = np.concatenate([[0.0], centres_hz_B, centres_hz_B[-1:]])
    return float(padded[bands.start : bands.start + 2].mean()), float(padded[bands.stop : bands.stop + 2].mean())


def _one_hz(frequency: float) -> str:
    return (
        f"{round(frequency, -1 if frequency >= 100 else 0):.0f} Hz"
        if frequency < 1000
        else f"{frequency / 1000:.1f} kHz"
    )


def _hz(low: float, high: float) -> str:
    if high < 1000:
        return f"{low:.0f}-{high:.0f} Hz"
    return f"{low / 1000:.1f}-{high / 1000:.1f} kHz"

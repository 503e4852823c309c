"""The sentence about a difference between a recording and the normal ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.sentences import Sentence
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


def normals_of(count: int, segments: bool) -> Sentence:
    """What was learned from: recordings, or segments of longer ones."""
    if segments:
        return Sentence("{count} normal segments", count=count)
    return Sentence("{count} normal recordings", count=count)


def differs(region: Region, seconds: float, normals: Sentence) -> Sentence:
    """What is new or missing, when, and by how much: in a recording of `seconds`, against `normals_of` a model."""
    longest_s = max(end - start for start, end in region.runs_s)
    times = len(region.runs_s)
    where = _hz(region.low_hz, region.high_hz)
    narrow = _narrow(region)
    if region.change_db < 0:
        change = Sentence("energy missing {where}", where=where)
    elif narrow and longest_s >= _TONE_S:
        change = Sentence("new tone near {frequency}", frequency=_one_hz(region.peak_hz))
    elif longest_s <= _KNOCK_S and region.high_hz > _KNOCK_RATIO * region.low_hz:
        change = Sentence("new knock {where}", where=where)
    else:
        change = Sentence("new energy {where}", where=where)
    values: dict[str, Any] = {"change": abs(region.change_db), "normals": normals}
    if region.change_db < 0 and region.unlike_any:
        height = Sentence("{change:.0f} dB below any of {normals}", **values)
    elif region.change_db < 0:
        height = Sentence("{change:.0f} dB below any like moment of {normals}", **values)
    elif region.unlike_any:
        height = Sentence("{change:.0f} dB above any of {normals}", **values)
    else:
        height = Sentence("{change:.0f} dB above any like moment of {normals}", **values)
    return Sentence("{change} {when}, {height}", change=change, when=_when(region, times, seconds), height=height)


def differs_most(region: Region, seconds: float) -> Sentence:
    """Where a recording of `seconds` is most unlike the normal ones, without a word on how rare that is.

    For recordings that are normal on the whole: each of those learned from, too, is beyond all others somewhere.
    """
    values: dict[str, Any] = {"when": _when(region, len(region.runs_s), seconds), "change": region.change_db}
    if _narrow(region):
        frequency = _one_hz(region.peak_hz)
        return Sentence("differs most near {frequency}, {when} ({change:+.0f} dB)", frequency=frequency, **values)
    where = _hz(region.low_hz, region.high_hz)
    return Sentence("differs most at {where}, {when} ({change:+.0f} dB)", where=where, **values)


def _narrow(region: Region) -> bool:
    return region.bands <= _TONE_BANDS or region.high_hz <= _TONE_RATIO * region.low_hz


def _when(region: Region, times: int, seconds: float) -> Sentence:
    first_s, last_s = region.runs_s[0], region.runs_s[-1]
    if sum(end - start for start, end in region.runs_s) > 0.7 * seconds:
        return Sentence("throughout")
    if times > 2:
        return Sentence("{times} times, first at {first:.1f} s", times=times, first=first_s[0])
    if times == 2:
        return Sentence("twice, at {first:.1f} and {last:.1f} s", first=first_s[0], last=last_s[0])
    if region.end_s - region.start_s <= _TONE_S:
        return Sentence("at {start:.1f} s", start=region.start_s)
    return Sentence("from {start:.1f} to {end:.1f} s", start=region.start_s, end=region.end_s)


def faint(clip_BC: Float32, envelope: Envelope, centres_hz_B: Float32) -> Sentence:
    """For a recording without a region that stands out: the rarest level or fluctuation of neighbouring bands, or tone.

    clip_BC: (bands, columns) in dB.
    """
    shift_db = envelope.common_shift(np.sort(clip_BC, axis=1))
    level_B = clip_BC.mean(axis=1) - shift_db
    values = {
        "level": (smoothed(level_B), envelope.usual_level_2B),
        "motion": (smoothed(clip_BC.std(axis=1)), envelope.usual_motion_2B),
        "tone": (level_B - smoothed(level_B), envelope.usual_band_2B),
    }
    rarest, change_db, kind, band = -np.inf, 0.0, "", 0
    for name, (clip_B, (mean_B, deviation_B)) in values.items():
        away_B = clip_B - mean_B
        rare_B = (away_B if name == "tone" else np.abs(away_B)) / (deviation_B + 0.1)
        if rare_B.max() > rarest:
            band = int(np.argmax(rare_B))
            rarest, change_db, kind = float(rare_B[band]), float(away_B[band]), name
    half = FAINT_BANDS // 2
    where = _hz(*band_edges(centres_hz_B, slice(max(0, band - half), min(len(clip_BC), band + half + 1))))
    if kind == "tone":
        frequency = _one_hz(float(centres_hz_B[band]))
        change = Sentence("a faint tone near {frequency} ({change:+.1f} dB)", frequency=frequency, change=change_db)
    elif kind == "level":
        change = Sentence("a steady {change:+.1f} dB at {where}", change=change_db, where=where)
    elif change_db > 0:
        change = Sentence("more fluctuation at {where} ({change:+.1f} dB)", change=change_db, where=where)
    else:
        change = Sentence("less fluctuation at {where} ({change:+.1f} dB)", change=change_db, where=where)
    return Sentence(
        "no sound or gap stands out; the rarest difference is {change} against the mean of {normals}",
        change=change, normals=normals_of(envelope.count, envelope.segments),
    )  # fmt: skip


def band_edges(centres_hz_B: Float32, bands: slice) -> tuple[float, float]:
    """Frequencies halfway to the neighbouring bands."""
    padded = np.concatenate([[0.0], centres_hz_B, centres_hz_B[-1:]])
    return float(padded[bands.start : bands.start + 2].mean()), float(padded[bands.stop : bands.stop + 2].mean())


def _one_hz(frequency: float) -> Sentence:
    if frequency < 1000:
        return Sentence("{frequency:.0f} Hz", frequency=round(frequency, -1 if frequency >= 100 else 0))
    return Sentence("{frequency:.1f} kHz", frequency=frequency / 1000)


def _hz(low: float, high: float) -> Sentence:
    if high < 1000:
        return Sentence("{low:.0f}-{high:.0f} Hz", low=low, high=high)
    return Sentence("{low:.1f}-{high:.1f} kHz", low=low / 1000, high=high / 1000)

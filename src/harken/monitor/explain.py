"""Why a recording sounds different: where in time and frequency, and by how much more than any normal recording did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from harken.core.sentences import Sentence
from harken.embeddings.sketch import sketch_steps
from harken.encoders.spectral import Spectral
from harken.monitor.envelope import Envelope
from harken.monitor.wording import Region, band_edges, differs, differs_most, faint, later, normals_of

Float32 = NDArray[np.float32]

#: a region stands out if it is this far beyond all normal recordings somewhere, and its cells are half as far
_LEAST_DB = 3.0
#: fewer cells are no gap: where two tones meet, a single cell is quiet by chance
_LEAST_GAP = 4
#: bands further below the loudest one of a region are its skirts, not itself
_SKIRT_DB = 12.0
#: gaps of so many bands within a region are bridged
_BRIDGED = 3
#: levels of a sketch up to here are those of digital silence, and may have been any lower
_SILENCE_DB = 10 * np.log10(Spectral.FLOOR) + 2


@dataclass(frozen=True, eq=False)
class Explanation:
    """What differs from all normal recordings.

    sentence: for people. heatmap_BC: (bands, columns) dB against the typical level of like moments. nearest: the normal
    recording that is most alike. low_hz, high_hz, start_s, end_s: the region that the sentence speaks of, the strongest
    one of several alike; change_db: by how much its level is beyond any normal recording's. None where nothing stands
    out.
    """

    sentence: str
    heatmap_BC: Float32
    nearest: str
    low_hz: float | None = None
    high_hz: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    change_db: float | None = None


@dataclass(frozen=True, eq=False)
class Difference:
    """(bands, columns) in dB: against the typical level of like moments, above the highest, and below the lowest of it.

    beyond_BC: above the loudest moment of all normal recordings.
    """

    heatmap_BC: Float32
    above_BC: Float32
    below_BC: Float32
    beyond_BC: Float32


def difference(clip_BC: Float32, envelope: Envelope) -> Difference:
    """Compare each moment of a sketch (bands, columns) in dB with the like moments of all normal recordings.

    The levels of the clip are brought to those of the normal recordings first (`Envelope.common_shift`). Like moments
    are those of like rank within the band. Moments louder than any, or quieter than any, are ranked apart from the
    others: a squeal does not make the strokes beside it the second loudest.
    """
    bands, columns = clip_BC.shape
    lowest_BC, middle_BC, highest_BC = envelope.stretched(columns)
    level_BC = clip_BC - np.float32(envelope.common_shift(np.sort(clip_BC, axis=1)))
    beyond_BC = level_BC - highest_BC[:, -1:]
    louder_BC, quieter_BC = beyond_BC > _LEAST_DB, lowest_BC[:, :1] - level_BC > _LEAST_DB
    # Cells are addressed in one dimension: numpy does that in a third of the time.
    row_B1 = columns * np.arange(bands)[:, None]
    rank_BC = np.empty(level_BC.shape, dtype=np.int64)
    # Whole numbers of few digits are sorted by these, in a fifth of the time.
    order_BC = np.argsort(sketch_steps(clip_BC), axis=1, kind="stable")
    rank_BC.put(order_BC + row_B1, np.arange(columns))
    below_B1 = np.count_nonzero(quieter_BC, axis=1, keepdims=True)
    others_B1 = np.maximum(columns - np.count_nonzero(louder_BC, axis=1, keepdims=True) - below_B1, 1)
    place_BC = np.rint((rank_BC - below_B1 + 0.5) / others_B1 * columns - 0.5)
    like_BC = np.clip(place_BC, 0, columns - 1).astype(int) + row_B1
    above_BC = level_BC - highest_BC.take(like_BC)
    # What is silence in the clip may have been quieter still, and its shift is no rise.
    above_BC[clip_BC <= _SILENCE_DB] = 0.0
    return Difference(
        heatmap_BC=level_BC - middle_BC.take(like_BC),
        above_BC=above_BC,
        below_BC=lowest_BC.take(like_BC) - level_BC,
        beyond_BC=beyond_BC,
    )


@dataclass(frozen=True, eq=False)
class StandsOut:
    """Where a clip differs most from all normal recordings, None where nothing stands out; times are those in the clip.

    heatmap_BC: see `Explanation`.
    """

    heatmap_BC: Float32
    region: Region | None


def standing_out(clip_BC: Float32, envelope: Envelope, *, centres_hz_B: Float32, seconds: float) -> StandsOut:
    """Compare the spectrogram (bands, columns) in dB of a clip of `seconds` with all normal recordings."""
    compared = difference(clip_BC, envelope)
    column_s = seconds / clip_BC.shape[1]
    regions = [
        region
        for sign, excess_BC in ((1, compared.above_BC), (-1, compared.below_BC))
        if (region := _strongest(excess_BC, sign, compared, centres_hz_B, column_s)) is not None
    ]
    return StandsOut(compared.heatmap_BC, max(regions, key=lambda region: region.weight, default=None))


def explain(
    clip_BC: Float32,
    envelope: Envelope,
    *,
    centres_hz_B: Float32,
    seconds: float,
    nearest: str,
    anomalous: bool,
    start_s: float = 0.0,
    compared: StandsOut | None = None,
) -> Explanation:
    """The difference between the spectrogram (bands, columns) in dB of a clip of `seconds` and all normal recordings.

    start_s: where the clip begins in the recording, in which times are given. anomalous: whether its verdict is suspect
    or alarm: a difference is then named though none stands out, and how rare it is; the sentence of a normal one says
    nothing that its verdict does not. compared: `standing_out` of the clip, if it is there.
    """
    if compared is None:
        compared = standing_out(clip_BC, envelope, centres_hz_B=centres_hz_B, seconds=seconds)
    if compared.region is None:
        sentence = Sentence("sounds like the normal recording {nearest}", nearest=nearest)
        if envelope.segments:
            sentence = Sentence("sounds like the normal segment {nearest}", nearest=nearest)
        if anomalous:
            sentence = faint(clip_BC, envelope, centres_hz_B)
        return Explanation(sentence, compared.heatmap_BC, nearest)
    region = later(compared.region, start_s)
    sentence = differs_most(region, seconds)
    if anomalous:
        sentence = differs(region, seconds, normals_of(envelope.count, envelope.segments))
    return Explanation(
        sentence,
        compared.heatmap_BC,
        nearest,
        region.low_hz,
        region.high_hz,
        region.start_s,
        region.end_s,
        region.change_db,
    )


def _strongest(
    excess_BC: Float32, sign: int, compared: Difference, centres_hz_B: Float32, column_s: float
) -> Region | None:
    """The region of the largest excess, among connected cells; None where none stands out."""
    if excess_BC.max() < _LEAST_DB:
        return None
    labels_BC, count = ndimage.label(excess_BC > _LEAST_DB / 2, structure=np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    energy_K = ndimage.sum_labels(excess_BC**2, labels_BC, numbers)
    energy_K[ndimage.maximum(excess_BC, labels_BC, numbers) < _LEAST_DB] = 0.0
    if sign < 0:
        energy_K[np.bincount(labels_BC.ravel())[1:] < _LEAST_GAP] = 0.0
    best = int(np.argmax(energy_K))
    if energy_K[best] == 0:
        return None
    inside_BC = np.where(labels_BC == best + 1, excess_BC, 0.0)
    columns_C = inside_BC.max(axis=0)
    profile_B = inside_BC[:, columns_C > 0.5 * columns_C.max()].mean(axis=1)
    peak = int(np.argmax(profile_B))
    bands = _run_around(profile_B > max(profile_B[peak] - _SKIRT_DB, 0.4 * profile_B[peak]), peak)
    # What happens again in the same bands is described together.
    strength_C, least_db = excess_BC[bands].mean(axis=0), _LEAST_DB / 2
    if strength_C.max() <= least_db:
        # A sweep is in one of its bands at a time.
        strength_C, least_db = inside_BC[bands].mean(axis=0), 0.0
    runs = _runs(strength_C > max(least_db, 0.3 * float(strength_C.max())))
    start, stop = max(runs, key=lambda run: strength_C[run[0] : run[1]].max())
    low_hz, high_hz = band_edges(centres_hz_B, bands)
    active_C = np.zeros(excess_BC.shape[1], dtype=bool)
    for first, last in runs:
        active_C[first:last] = True
    height_db = float(excess_BC[bands][:, active_C].max(axis=0).mean())
    unlike_any = sign < 0 or float(compared.beyond_BC[bands][:, active_C].max(axis=0).mean()) > _LEAST_DB / 2
    return Region(
        low_hz=low_hz,
        high_hz=high_hz,
        peak_hz=float(np.average(centres_hz_B[bands], weights=10 ** (profile_B[bands] / 10))),
        bands=bands.stop - bands.start,
        start_s=start * column_s,
        end_s=stop * column_s,
        runs_s=tuple((first * column_s, last * column_s) for first, last in runs),
        change_db=sign * height_db,
        unlike_any=unlike_any,
        # A gap is less striking than a sound as far from the normal level.
        weight=float(energy_K[best]) * (1.0 if sign > 0 else 0.25),
    )


def _run_around(marked_B: NDArray[np.bool_], place: int) -> slice:
    """The run of marked places that `place` is in, short gaps bridged: levels of noise vary from band to band."""
    padded = np.pad(marked_B, _BRIDGED)
    marked_B = ndimage.binary_closing(padded, np.ones(_BRIDGED + 1))[_BRIDGED:-_BRIDGED]
    return next(slice(start, stop) for start, stop in _runs(marked_B) if start <= place < stop)


def _runs(marked: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of each run of marked places."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))

"""Quality checks of recordings and sets of recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harken.audio.moments import Moments
from harken.audio.traces import runs
from harken.core.sentences import Sentence

Kind = Literal[
    "not finite", "silent", "clipped", "constant offset", "dropouts", "too short", "higher rate",
    "cut off", "unfinished header", "longer than its header", "several recordings", "damaged header",
]  # fmt: skip

#: of findings on a file and its header, not on the sound
HEADER_KINDS: frozenset[Kind] = frozenset(
    {"cut off", "unfinished header", "longer than its header", "several recordings", "damaged header"}
)
#: samples of floats may exceed full scale, as integers that were never scaled do; beyond this they are no sound
MOST_AMPLITUDE = 1e6
#: RMS level without the mean, below which a channel is silent
SILENCE_DBFS = -90.0
#: fraction of clipped samples above which a recording is clipped
CLIPPED_SHARE = 1e-3
#: mean relative to RMS above which a channel has a constant offset
OFFSET_SHARE = 0.5
#: duration and number of constant samples above which a recording has dropouts
DROPOUT_SECONDS, DROPOUT_SAMPLES = 0.02, 32


@dataclass(frozen=True)
class Finding:
    """A defect of a recording.

    detail: the message. unusable: the recording cannot be scored. Usable recordings with defects can be scored, since a
    loud fault may clip, but are excluded from training; not so where the defect is harmless, that is, taken off by
    `listen`.
    """

    kind: Kind
    detail: str
    next_step: str
    unusable: bool
    harmless: bool = False

    @property
    def sentence(self) -> str:
        """The detail, and how to repair the file where its header is the matter."""
        return f"{self.detail}. {self.next_step}" if self.kind in HEADER_KINDS else self.detail


def inspect(
    moments: Moments, sample_rate: int, *, shortest_seconds: float = 0.1, offset_removed: bool = False
) -> list[Finding]:
    """Defects of a recording's channels; a single one if it is unusable.

    offset_removed: a constant offset is harmless.
    """
    samples_CS = moments.samples_CS
    # NaN passes through minima and maxima.
    low, high = (float(samples_CS.min()), float(samples_CS.max())) if samples_CS.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        invalid = samples_CS.size - int(np.isfinite(samples_CS).sum())
        several = Sentence("{count} samples are NaN or infinite", count=invalid)
        detail = Sentence("1 sample is NaN or infinite") if invalid == 1 else several
        return [Finding("not finite", detail, "Record it again or remove it", True)]
    loudest = max(-low, high)
    if loudest > MOST_AMPLITUDE:
        detail = Sentence("holds values up to {loudest:.0e}, where full scale is 1", loudest=loudest)
        return [Finding("not finite", detail, "Record it again or remove it", True)]
    seconds = samples_CS.shape[1] / sample_rate
    if seconds < shortest_seconds:
        detail = Sentence("lasts {length:.0f} ms, too short to hear a machine", length=seconds * 1000)
        return [Finding("too short", detail, "Record at least one second", True)]
    findings: list[Finding] = []
    mean_C, deviation_C = moments.mean_C, moments.deviation_C
    rms_C = np.hypot(mean_C, deviation_C)
    quiet = np.flatnonzero(deviation_C < 10 ** (SILENCE_DBFS / 20))
    if len(quiet):
        detail = Sentence("is silent (below {limit:g} dBFS)", limit=SILENCE_DBFS)
        if samples_CS.shape[0] > 1:
            channels = ", ".join(map(str, quiet))
            detail = Sentence(
                "is silent in channel {channels} (below {limit:g} dBFS)", channels=channels, limit=SILENCE_DBFS
            )
        return [Finding("silent", detail, "Check that the microphone is connected and the machine runs", True)]
    share = _clipped_share(samples_CS, mean_C)
    if share > CLIPPED_SHARE:
        detail = Sentence("is clipped: {share:.1%} of its samples are at full scale", share=share)
        findings.append(Finding("clipped", detail, "Lower the recording gain", False))
    if np.any(np.abs(mean_C) > OFFSET_SHARE * rms_C):
        detail = Sentence("has a constant offset of {offset:.3f}", offset=float(np.abs(mean_C).max()))
        if offset_removed:
            detail = Sentence("{offset}, which is not listened to", offset=detail)
        step = "Check the sound card or use AC coupling"
        findings.append(Finding("constant offset", detail, step, False, harmless=offset_removed))
    constant = _longest_constant(samples_CS)
    dropout = constant / sample_rate
    if dropout > DROPOUT_SECONDS and constant > DROPOUT_SAMPLES:
        detail = Sentence("has dropouts: {length:.0f} ms of constant samples", length=dropout * 1000)
        findings.append(Finding("dropouts", detail, "Check the recorder and the cable", False))
    return findings


def _clipped_share(samples_CS: NDArray[np.float32], mean_C: NDArray[np.float64]) -> float:
    """Largest fraction, over channels, of samples in runs of two or more at the extreme value: flat tops, not peaks."""
    worst = 0.0
    for channel_S, mean in zip(samples_CS, mean_C, strict=True):
        deviation_S = np.abs(channel_S - np.float32(mean)) if abs(mean) > 1e-3 else np.abs(channel_S)
        top = float(deviation_S.max())
        # Quiet recordings of few quantisation steps also have flat tops without being clipped.
        if top > 0.05:
            at_top = np.flatnonzero(deviation_S >= top * (1 - 1e-4))
            flat = int(np.count_nonzero(np.diff(at_top) == 1))
            worst = max(worst, (flat + (flat > 0)) / channel_S.size)
    return worst


def _longest_constant(samples_CS: NDArray[np.float32]) -> int:
    """Length in samples of the longest run of equal samples in any channel."""
    steps = (runs(np.flatnonzero(channel_S[1:] == channel_S[:-1]))[1].max(initial=0) for channel_S in samples_CS)
    return max((int(count) + 1 for count in steps), default=0)


#: `texture_difference` below which recordings are the same but for gain, quiet noise or lossy coding: MP3 and Vorbis
#: give up to 0.45, the most alike pair of recordings of five real machines 0.8
SAME_TEXTURE = 0.5
#: length of the windows of spectrograms, at least
_WINDOW_SECONDS = 0.05


def texture_difference(
    first_BC: NDArray[np.uint8], second_BC: NDArray[np.uint8], step_db: float, seconds: float, band_hz: float
) -> float:
    """How much spectrograms (bands, columns) in steps of `step_db` differ, relative to those of one stationary noise.

    The random texture of noise is never twice the same: in a cell of bandwidth B and duration T, the power has a
    relative deviation of 1 / sqrt(B T), so levels of two recordings differ by 4.34 sqrt(2 / (B T)) dB. Levels are
    aligned by the median of the differences. The mean absolute difference of the closest three quarters of the cells
    (0.515 deviations for a Gaussian) counts, so that bands that a codec leaves out do not; cells 60 dB below the
    highest are ignored.

    seconds: duration. band_hz: mean bandwidth.
    """
    columns = min(first_BC.shape[1], second_BC.shape[1])
    first_BC, second_BC = first_BC[:, :columns], second_BC[:, :columns]
    higher_BC = np.maximum(first_BC, second_BC)
    difference_P = (first_BC.astype(np.int16) - second_BC)[higher_BC > higher_BC.max() - 60 / step_db]
    # Of so few values, counts are sorted instead of cells. Twice the differences, since a median may be between two.
    count_V = np.bincount(difference_P + 255, minlength=511)
    count = len(difference_P)
    twice_V = 2 * np.arange(511)
    middle = twice_V[np.searchsorted(np.cumsum(count_V), [(count - 1) // 2, count // 2], side="right")].mean()
    away_V = np.abs(twice_V - middle)
    order_V = np.argsort(away_V, kind="stable")
    closest = max(1, 3 * count // 4)
    sorted_V = count_V[order_V]
    taken_V = np.clip(closest - (np.cumsum(sorted_V) - sorted_V), 0, sorted_V)
    mean_db = step_db * float(np.dot(taken_V, away_V[order_V])) / (2 * closest)
    product = max(1.0, max(seconds / columns, _WINDOW_SECONDS) * band_hz)
    expected = 0.515 * 4.34 * np.sqrt(2.0 / product)
    return mean_db / expected


def level_groups(levels_db: Sequence[float], *, gap_db: float = 6.0) -> list[list[int]]:
    """Groups of recordings (indices) by level, quietest first, separated by gaps of at least `gap_db` between levels.

    Several groups usually mean that the recording gain or the microphone's position has changed.
    """
    order = np.argsort(np.asarray(levels_db, dtype=np.float64), kind="stable")
    groups: list[list[int]] = []
    for index in order.tolist():
        if not groups or levels_db[index] - levels_db[groups[-1][-1]] >= gap_db:
            groups.append([])
        groups[-1].append(index)
    return groups

"""What is wrong with a recording, or with a set of recordings, before anything is learned from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["not finite", "silent", "clipped", "constant offset", "dropouts", "too short"]

SILENCE_DBFS = -90.0
CLIPPED_SHARE = 1e-3
OFFSET_SHARE = 0.5
DROPOUT_SECONDS = 0.02


@dataclass(frozen=True)
class Finding:
    """One defect of one recording.

    unusable: nothing can be said about the machine from it. A usable but marred recording can be scored (a
    loud fault may clip), but is left out of training.
    """

    kind: Kind
    detail: str
    next_step: str
    unusable: bool


def level_dbfs(samples: NDArray[np.float32]) -> float:
    """RMS level in dB relative to a full-scale square wave; -inf for digital silence."""
    mean_square = float(np.mean(np.square(samples, dtype=np.float64)))
    return float(10 * np.log10(mean_square)) if mean_square > 0 else float("-inf")


def inspect(samples_CT: NDArray[np.float32], sample_rate: int, *, shortest_seconds: float = 0.1) -> list[Finding]:
    """Defects of one recording, (channels, samples) float32; the unusable ones first."""
    bad = samples_CT.size - int(np.isfinite(samples_CT).sum())
    if bad:
        return [Finding("not finite", f"{bad} samples are NaN or infinite", "Record it again or remove it", True)]
    seconds = samples_CT.shape[1] / sample_rate
    if seconds < shortest_seconds:
        detail = f"lasts {seconds * 1000:.0f} ms, too short to hear a machine"
        return [Finding("too short", detail, "Record at least a second", True)]
    findings: list[Finding] = []
    # The offset of a converter is not sound: silence is judged without it.
    mean_C = samples_CT.mean(axis=1, dtype=np.float64)
    rms_C = np.sqrt(np.mean(np.square(samples_CT, dtype=np.float64), axis=1))
    sound_C = np.sqrt(np.maximum(rms_C**2 - mean_C**2, 0))
    quiet = np.flatnonzero(sound_C < 10 ** (SILENCE_DBFS / 20))
    if len(quiet):
        which = "" if samples_CT.shape[0] == 1 else f" in channel {', '.join(map(str, quiet))}"
        detail = f"is silent{which} (below {SILENCE_DBFS:g} dBFS)"
        return [Finding("silent", detail, "Check that the microphone is connected and the machine runs", True)]
    share = _clipped_share(samples_CT)
    if share > CLIPPED_SHARE:
        detail = f"is clipped: {share:.1%} of its samples stand at full scale"
        findings.append(Finding("clipped", detail, "Lower the recording gain", False))
    if np.any(np.abs(mean_C) > OFFSET_SHARE * rms_C):
        detail = f"has a constant offset of {np.abs(mean_C).max():.3f}"
        findings.append(Finding("constant offset", detail, "Check the sound card or use AC coupling", False))
    lost = _longest_constant(samples_CT) / sample_rate
    if lost > DROPOUT_SECONDS:
        detail = f"has dropouts: {lost * 1000:.0f} ms without any change of the signal"
        findings.append(Finding("dropouts", detail, "Check the recorder and the cable", False))
    return findings


def _clipped_share(samples_CT: NDArray[np.float32]) -> float:
    """Share of samples in runs of two or more at one channel's extreme value (a flat top, not a lone peak)."""
    worst = 0.0
    for channel in samples_CT:
        top = max(float(channel.max()), -float(channel.min()))
        at_top = np.abs(channel) >= top * (1 - 1e-4)
        flat = at_top[1:] & at_top[:-1]
        # Quiet recordings of few quantisation steps also have flat tops; they are not overdriven.
        if top > 0.05:
            worst = max(worst, (int(flat.sum()) + int(flat.any())) / channel.size)
    return worst


def _longest_constant(samples_CT: NDArray[np.float32]) -> int:
    longest = 0
    for channel in samples_CT:
        changes = np.flatnonzero(np.diff(channel))
        edges = np.concatenate([[-1], changes, [channel.size - 1]])
        longest = max(longest, int(np.diff(edges).max()))
    return longest


def near_duplicates(
    nearest_N: NDArray[np.floating], neighbour_N: NDArray[np.integer], *, tolerance: float = 1e-3
) -> list[tuple[int, int]]:
    """Pairs of recordings that are the same but for a re-encoding: (earlier, later) row numbers.

    nearest_N: distance of each recording's embedding to its nearest neighbour; neighbour_N: that neighbour's row.
    A pair is near-duplicate when its distance is below `tolerance` times the median of the non-zero ones.
    Duplicates fake confidence: each looks perfectly normal to the other.
    """
    positive = nearest_N[nearest_N > 0]
    radius = tolerance * float(np.median(positive)) if len(positive) else 0.0
    rows = np.flatnonzero(nearest_N <= radius)
    return sorted({(min(int(i), int(neighbour_N[i])), max(int(i), int(neighbour_N[i]))) for i in rows})


def level_groups(levels_db: Sequence[float], *, gap_db: float = 6.0) -> list[list[int]]:
    """Recordings grouped by level, quietest first; a new group starts where sorted levels jump by `gap_db` or more.

    More than one group usually means that the recording gain or the microphone's place has changed.
    """
    order = np.argsort(np.asarray(levels_db, dtype=np.float64), kind="stable")
    groups: list[list[int]] = []
    for index in order.tolist():
        if not groups or levels_db[index] - levels_db[groups[-1][-1]] >= gap_db:
            groups.append([])
        groups[-1].append(index)
    return groups

"""The normal recordings that a detector learns from: which may take part, what is noted, what is kept of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.audio.decode import Limits
from harken.audio.quality import level_groups, near_duplicates
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.detection.calibration import Calibration
from harken.detection.neighbours import nearest
from harken.detection.space import standardisation
from harken.embeddings.extract import Extracted, probe

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: fewer normal recordings than this make a weak model
FEW_CLIPS = 30


@dataclass(frozen=True)
class Excluded:
    """A recording that did not take part, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class Training:
    """What is kept of the normal recordings, in the order in which they were made, as far as it is known.

    names: paths below their common folder. domains: `source`/`target`, or `state 0` ... where they were found.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    embeddings_ND: Float32
    sketches_NBC: list[NDArray[np.uint8]]
    scores_N: Float64
    levels_db_N: Float64
    seconds_N: Float64

    @cached_property
    def scaling(self) -> tuple[Float64, Float64]:
        return standardisation(self.embeddings_ND.astype(np.float64))

    @cached_property
    def standardised_ND(self) -> Float64:
        mean_D, scale_D = self.scaling
        return (self.embeddings_ND - mean_D) / scale_D


def learnable(clips: Sequence[Clip], excluded: list[Excluded]) -> list[Clip]:
    """Clips whose names do not say that they are something else than a machine's normal sound."""
    kept = []
    for clip in clips:
        if clip.condition == "anomaly":
            excluded.append(Excluded(clip.path, "is named an anomaly: not learned from"))
        elif clip.split == "test" or (clip.section and clip.condition == "unknown" and clip.kind == "machine"):
            excluded.append(Excluded(clip.path, "is named a test or evaluation clip: not learned from"))
        elif clip.kind == "noise":
            excluded.append(Excluded(clip.path, "is named noise without the machine: not learned from"))
        else:
            kept.append(clip)
    return kept


def named_states(paths: Sequence[Path], pattern: str) -> list[str]:
    """The state that each file's name tells; HarkenError for no regular expression or one that never matches."""
    try:
        found = [re.search(pattern, path.stem) for path in paths]
    except re.error as error:
        raise HarkenError(f"{pattern!r} is no regular expression ({error})", next_step="Correct --state") from None
    if not any(found):
        raise HarkenError(f"{pattern!r} matches no file name, such as {paths[0].stem}", next_step="Correct --state")
    return ["other" if match is None else match[match.re.groups and 1] for match in found]


def usual_form(paths: Sequence[Path], workers: int | None, limits: Limits, formats: frozenset[str]) -> tuple[int, int]:
    """Most frequent (sampling rate, channels) among up to 25 recordings spread over all.

    (16000, 1) if none of them is readable: each recording then gets its own message.
    """
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(25, len(paths))).astype(int))]
    forms = [form for form in probe(chosen, workers=workers, limits=limits, formats=formats) if form is not None]
    return max(sorted(set(forms)), key=forms.count) if forms else (16_000, 1)


def unfit(result: Extracted, seen: Mapping[str, Path]) -> str | None:
    """Why a recording must not be learned from, if so."""
    if result.error is not None:
        return result.error.cause
    assert result.features is not None
    defect = next((finding for finding in result.features.findings if not finding.harmless), None)
    if defect is not None:
        return defect.detail
    same = seen.get(result.features.sha256)
    return None if same is None else f"is the same file as {same.name}"


def near_duplicate_rows(embeddings_ND: Float32) -> dict[int, int]:
    """Rows that are the same as an earlier one but for a re-encoding, and that earlier row."""
    mean_D, scale_D = standardisation(embeddings_ND.astype(np.float64))
    z_ND = (embeddings_ND - mean_D) / scale_D
    itself = np.arange(len(z_ND))
    distance_N1, neighbour_N1 = nearest(z_ND, z_ND, 1, query_blocks_N=itself, bank_blocks_M=itself)
    return {second: first for first, second in near_duplicates(distance_N1[:, 0], neighbour_N1[:, 0])}


def notes_on(training: Training, calibration: Calibration) -> list[str]:
    """What the maker of a model should know about the recordings."""
    notes = []
    count = len(training.names)
    if count < FEW_CLIPS:
        notes.append(f"only {count} recordings: expect a weak model ({FEW_CLIPS} or more are useful)")
    if calibration.effective < 0.7 * count:
        notes.append(f"consecutive recordings are alike: {count} count as {calibration.effective:.0f} independent ones")
    groups = level_groups(training.levels_db_N.tolist())
    if len(groups) > 1:
        sizes = ", ".join(str(len(group)) for group in groups)
        notes.append(f"recording levels fall into {len(groups)} groups ({sizes} recordings): was the gain changed?")
    worst = int(np.argmax(training.scores_N))
    middle, upper = np.percentile(training.scores_N, [50, 90])
    if training.scores_N[worst] > upper + 3 * (upper - middle):
        notes.append(f"{training.names[worst]} sounds unlike the other normal recordings: listen to it")
    return notes

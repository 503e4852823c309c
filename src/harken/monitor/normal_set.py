"""The normal recordings that a detector learns from: which may take part, what is noted, what is kept of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.audio.quality import SAME_TEXTURE, Kind, level_groups, texture_difference
from harken.audio.segments import Form, is_segment_name
from harken.core.errors import HarkenError
from harken.core.names import shown
from harken.data.clips import Clip, names_below_common
from harken.detection.calibration import Calibration
from harken.detection.crowd import apart
from harken.detection.neighbours import nearest
from harken.detection.outliers import far_scores
from harken.detection.space import standardisation
from harken.embeddings.embedder import ClipFeatures
from harken.embeddings.sketch import STEP_DB
from harken.embeddings.steady import steady_levels

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: fewer normal recordings than this make a weak model
FEW_CLIPS = 30
#: near duplicates are looked for among so many nearest embeddings
_CANDIDATES = 5
#: share of the recordings up to which a state that was found may be something else
_SMALL_STATE = 0.1
#: what to ask of recordings that are unlike the others
QUESTION = (
    "a fault, a rare state, another machine? Listen, then leave out with --exclude what is not normal, or record more "
    "of what is"
)


@dataclass(frozen=True)
class Excluded:
    """A recording that did not take part, and why. outlier: because it is unlike all others."""

    path: Path
    reason: str
    outlier: bool = False


def by_reason(set_aside: Sequence[Excluded]) -> dict[str, list[Path]]:
    """Recordings that did not take part, by why, both in their order."""
    paths: dict[str, list[Path]] = {}
    for excluded in set_aside:
        paths.setdefault(excluded.reason, []).append(excluded.path)
    return paths


@dataclass(frozen=True, eq=False)
class Training:
    """What is kept of the normal recordings, in the order in which they were made, as far as it is known.

    names: paths below their common folder. domains: `source`/`target`, or `state 0` ... where they were found. sha256s:
    of the files' bytes; none in models of earlier versions.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    embeddings_ND: Float32
    sketches_NBC: list[NDArray[np.uint8]]
    scores_N: Float64
    levels_db_N: Float64
    seconds_N: Float64
    sha256s: tuple[str, ...] = ()
    #: (recordings, channels, statistics) of `audio.health`; None in models of earlier versions, and of runs
    health_NCK: Float32 | None = None

    @cached_property
    def segments(self) -> bool:
        """Whether they are segments of recordings, all of them."""
        return all(map(is_segment_name, self.names))

    @cached_property
    def steady_NB(self) -> Float32:
        """(N, bands) see `ClipFeatures`."""
        return np.stack([steady_levels(sketch_BC) for sketch_BC in self.sketches_NBC])

    @cached_property
    def rows_by_sha256(self) -> dict[str, int]:
        """Row of the recording with a file of those bytes."""
        return {sha256: row for row, sha256 in enumerate(self.sha256s) if sha256}

    @cached_property
    def rows_by_embedding(self) -> dict[bytes, int]:
        """Row of the recording with an embedding of those bytes."""
        return {embedding_D.tobytes(): row for row, embedding_D in enumerate(self.embeddings_ND.astype(np.float32))}

    @cached_property
    def scaling(self) -> tuple[Float64, Float64]:
        """(D,) mean and deviation of the embeddings, see `standardisation`."""
        return standardisation(self.embeddings_ND.astype(np.float64))

    @cached_property
    def standardised_ND(self) -> Float64:
        """(N, D) embeddings in units of their deviation from the mean."""
        mean_D, scale_D = self.scaling
        return (self.embeddings_ND - mean_D) / scale_D


def not_excluded(paths: Sequence[Path], patterns: Sequence[str], excluded: list[Excluded]) -> list[Path]:
    """Paths that no pattern names; the others are added to `excluded`.

    patterns: paths of files or folders, or patterns (`*`, `?`, `[...]`) of file names and of paths below the common
    folder. Raises HarkenError for one that names no recording.
    """
    kept = list(paths)
    names = dict(zip(paths, names_below_common(paths), strict=True)) if paths else {}
    for pattern in patterns:
        given = Path(pattern).absolute()
        matching = [
            path
            for path in paths
            if given in (path.absolute(), *path.absolute().parents)
            or fnmatchcase(path.name, pattern)
            or fnmatchcase(names[path], pattern)
        ]
        if not matching:
            raise HarkenError(f"{pattern!r} names none of the recordings", next_step="Correct --exclude")
        excluded += [Excluded(path, f"is excluded by {pattern}") for path in matching if path in kept]
        kept = [path for path in kept if path not in set(matching)]
    return kept


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
    """The state in each file's name; HarkenError for no regular expression or one that never matches."""
    try:
        matches = [re.search(pattern, path.stem) for path in paths]
    except re.error as error:
        raise HarkenError(f"{pattern!r} is no regular expression ({error})", next_step="Correct --state") from None
    if not any(matches):
        name = shown(paths[0].stem)
        raise HarkenError(f"{pattern!r} matches no file name, such as {name}", next_step="Correct --state")
    return ["other" if match is None else match[match.re.groups and 1] for match in matches]


def usual_form(forms: Sequence[Form]) -> tuple[int, int]:
    """Most frequent (sampling rate, channels).

    (16000, 1) if no recording is readable: each then gets its own message.
    """
    counts = Counter((form.sample_rate, form.channels) for form in forms)
    return max(sorted(counts), key=counts.__getitem__) if counts else (16_000, 1)


def usual_defects(features: Sequence[ClipFeatures]) -> set[Kind]:
    """Defects of more than half of the recordings: that is how this machine is recorded."""
    counts = Counter(kind for clip in features for kind in {finding.kind for finding in clip.findings})
    return {kind for kind, count in counts.items() if 2 * count > len(features)}


def defect_of(features: ClipFeatures, usual: Collection[str]) -> str | None:
    """The first defect that is not `usual`, for which a recording is not learned from."""
    defects = (finding for finding in features.findings if not finding.harmless and finding.kind not in usual)
    return next((finding.detail for finding in defects), None)


def near_duplicate_rows(features: Sequence[ClipFeatures], sample_rate: int, first: int = 0) -> dict[int, int]:
    """Rows that are the same as an earlier one but for gain or a re-encoding, and that earlier row.

    first: rows before it are known to be different from each other.

    They bias held-out scores towards normal, since each has the other as neighbour. Each is compared with those of
    `_CANDIDATES` nearest embeddings; see `texture_difference`.
    """
    embeddings_ND = np.stack([clip.embedding for clip in features]).astype(np.float64)
    mean_D, scale_D = standardisation(embeddings_ND)
    z_ND = (embeddings_ND - mean_D) / scale_D
    itself = np.arange(len(z_ND))
    neighbour_NK = nearest(z_ND, z_ND, min(_CANDIDATES, len(z_ND) - 1), query_blocks_N=itself, bank_blocks_M=itself)[1]
    first_of: dict[int, int] = {}
    for row, earlier in sorted({(max(i, int(j)), min(i, int(j))) for i in range(len(z_ND)) for j in neighbour_NK[i]}):
        if row < first or row in first_of or earlier in first_of:
            continue
        if _same(features[row], features[earlier], sample_rate):
            first_of[row] = earlier
    return first_of


def _same(clip: ClipFeatures, earlier: ClipFeatures, sample_rate: int) -> bool:
    if not clip.sketch_BC.size or clip.sketch_BC.shape[0] != earlier.sketch_BC.shape[0]:
        return False
    if abs(clip.seconds - earlier.seconds) > 0.02 * clip.seconds:
        return False
    bands = clip.sketch_BC.shape[0]
    sketches = clip.sketch_BC, earlier.sketch_BC
    return texture_difference(*sketches, STEP_DB, clip.seconds, sample_rate / 2 / bands) < SAME_TEXTURE


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
    named: set[int] = set()
    for state, rows in small_states(training).items():
        names = listed([training.names[row] for row in rows])
        notes.append(f"{names} sound alike and unlike the others ({state}): {QUESTION}")
        named |= {*rows}
    far = np.flatnonzero(far_scores(training.scores_N)).tolist()
    if len(far) > 1:
        names = listed([training.names[row] for row in far])
        notes.append(f"{names} sound unlike the other recordings: {QUESTION}")
        named |= {*far}
    else:
        worst = int(np.argmax(training.scores_N))
        middle, upper = np.percentile(training.scores_N, [50, 90])
        if training.scores_N[worst] > upper + 3 * (upper - middle):
            notes.append(f"{shown(training.names[worst])} sounds unlike the other normal recordings: listen to it")
            named.add(worst)
    aside = [row for row in apart_rows(training) if row not in named]
    if aside:
        names = listed([training.names[row] for row in aside])
        notes.append(f"{names} {'is' if len(aside) == 1 else 'are'} apart from most recordings: {QUESTION}")
    return notes


def apart_rows(training: Training) -> list[int]:
    """Rows of recordings that are apart from most others of their domain, see `detection.crowd`."""
    of = np.asarray(training.domains)
    apart_N = np.zeros(len(of), dtype=bool)
    for domain in np.unique(of):
        apart_N[of == domain] = apart(training.embeddings_ND[of == domain])
    return [int(row) for row in np.flatnonzero(apart_N)]


def small_states(training: Training) -> dict[str, list[int]]:
    """Rows of each state that was found with at most the share `_SMALL_STATE` of the recordings."""
    of = np.asarray(training.domains)
    rows = {str(state): np.flatnonzero(of == state).tolist() for state in np.unique(of)}
    return {
        state: members
        for state, members in rows.items()
        if state.startswith("state ") and len(members) <= _SMALL_STATE * len(of)
    }


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, as they are shown, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more

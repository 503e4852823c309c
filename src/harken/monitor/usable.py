"""Which of the recordings heard can be learned from, and what is wrong with the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harken.audio.quality import HEADER_KINDS, Kind
from harken.core.names import shown
from harken.data.clips import Clip
from harken.embeddings.embedder import ClipFeatures
from harken.embeddings.isolated import Extracted
from harken.monitor.normal_set import Excluded, defect_of, near_duplicate_rows, usual_defects
from harken.monitor.sensor import unfit_among

#: fewer recordings than this are not learned from
LEAST_CLIPS = 3


def usable_clips(
    clips: Sequence[Clip],
    results: Iterable[Extracted],
    set_aside: list[Excluded],
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Clip], list[ClipFeatures], list[str]]:
    """Clips that can be learned from, their features, and defects that count as usual; the other clips are added to
    `set_aside`."""
    heard: list[tuple[Clip, ClipFeatures]] = []
    for done, (clip, result) in enumerate(zip(clips, results, strict=True), start=1):
        if result.features is None:
            set_aside.append(Excluded(clip.path, "" if result.error is None else result.error.cause))
        else:
            heard.append((clip, result.features))
        if progress is not None:
            progress(done, len(clips))
    usual = usual_defects([features for _, features in heard])
    usable: list[tuple[Clip, ClipFeatures]] = []
    seen: dict[str, Path] = {}
    for clip, features in heard:
        reason = defect_of(features, usual)
        if reason is None and features.sha256 in seen:
            reason = f"is the same file as {shown(seen[features.sha256].name)}"
        if reason is None:
            seen[features.sha256] = clip.path
            usable.append((clip, features))
        else:
            set_aside.append(Excluded(clip.path, reason))
    reasons = unfit_among([features.health for _, features in usable], [features.seconds for _, features in usable])
    set_aside += [Excluded(usable[row][0].path, reason) for row, reason in sorted(reasons.items())]
    kept = [pair for row, pair in enumerate(usable) if row not in reasons]
    defects: list[str] = sorted(kind for kind in usual if any(_marred(features, kind) for _, features in kept))
    return [clip for clip, _ in kept], [features for _, features in kept], defects


def _marred(features: ClipFeatures, kind: str) -> bool:
    return any(finding.kind == kind and not finding.harmless for finding in features.findings)


def header_notes(clips: Sequence[Clip], features: Sequence[ClipFeatures]) -> list[str]:
    """What is wrong with the headers of recordings that are learned from, once per kind."""
    first: dict[Kind, tuple[str, str]] = {}
    counts: Counter[Kind] = Counter()
    for clip, heard in zip(clips, features, strict=True):
        for finding in heard.findings:
            if finding.kind in HEADER_KINDS:
                first.setdefault(finding.kind, (shown(clip.path.name), finding.sentence))
                counts[finding.kind] += 1
    more = {kind: f" and {count - 1} more" if count > 1 else "" for kind, count in counts.items()}
    return [f"{name}{more[kind]}: {sentence}" for kind, (name, sentence) in first.items()]


def without_near_duplicates(
    clips: list[Clip], features: list[ClipFeatures], sample_rate: int, set_aside: list[Excluded]
) -> tuple[list[Clip], list[ClipFeatures]]:
    """Without those that are the same as an earlier one but for a re-encoding, as long as enough are left."""
    if len(clips) <= LEAST_CLIPS:
        return clips, features
    duplicates = near_duplicate_rows(features, sample_rate)
    duplicates = dict(list(duplicates.items())[: len(clips) - LEAST_CLIPS])
    set_aside += [
        Excluded(clips[row].path, f"is nearly the same as {shown(clips[first].path.name)}")
        for row, first in sorted(duplicates.items())
    ]
    rows = [row for row in range(len(clips)) if row not in duplicates]
    return [clips[row] for row in rows], [features[row] for row in rows]

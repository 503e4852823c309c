"""Clips that stages have made: which of them a stage gets, and their checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from harken.bench.graph import Unit, set_of
from harken.bench.stages import Stage
from harken.bench.stages.tables import read_clips
from harken.core.errors import HarkenError
from harken.data.clips import Clip, origins


def with_derived(unit: Unit, cls: type[Stage], folders: Iterable[Path]) -> list[Clip]:
    """Clips of a unit, then those in `folders` (of stages that make clips) that belong to it: made of one of its
    recordings, or, without parents, of its set and machine.

    Raises HarkenError for two clips of the same id, and for payloads that a stage of kind `cls` does not read.
    """
    made = [clip for folder in folders for clip in read_clips(folder)]
    rows = [*unit.clips, *made]
    clip_id, count = Counter(clip.clip_id for clip in rows).most_common(1)[0]
    if count > 1:
        raise HarkenError(f"{count} clips have the id {clip_id}", next_step="Name each stage once under from")
    unit_ids, of_id = {clip.clip_id for clip in unit.clips}, {clip.clip_id: clip for clip in made}
    origin_of = origins(rows)
    machines = {clip.machine for clip in unit.clips}

    def belongs(clip: Clip) -> bool:
        first = of_id.get(origin_of[clip.clip_id])
        if first is None or first.parents:
            return origin_of[clip.clip_id] in unit_ids
        return first.machine in machines and unit.set in ("", set_of(first))

    given = [clip for clip in made if belongs(clip)]
    for clip in given:
        if clip.payload not in cls.payloads:
            raise HarkenError(
                f"{clip.clip_id} is a {clip.payload}, and this stage reads {' and '.join(cls.payloads)} only",
                next_step="Leave the stage that makes it out of from",
            )
    return [*unit.clips, *given]


def check_derived(clips: Sequence[Clip], parents: Sequence[Clip], cls: type[Stage], folder: Path) -> None:
    """Check the clips that a stage of kind `cls` has made in `folder` of `parents`.

    Raises HarkenError unless each has a new id, a kind that is not recorded, a file in the folder, and, where
    it has parents, the machine, section, domain, attributes and split of the first (of generated clips: its machine and
    split); made of test clips, the stage must say so (`from_tests`), and they have no condition.
    """
    clip_of = {clip.clip_id: clip for clip in parents}
    for clip in clips:
        wrong = _wrong(clip, clip_of, cls, folder)
        if wrong:
            raise HarkenError(
                f"{clip.clip_id or 'a clip'}, made by {cls.__name__}, {wrong}", next_step="Correct the stage"
            )
        clip_of[clip.clip_id] = clip


def _wrong(clip: Clip, clip_of: dict[str, Clip], cls: type[Stage], folder: Path) -> str:
    if not clip.clip_id or clip.clip_id in clip_of:
        return "has the id of another clip"
    if clip.recorded:
        return f"is of kind {clip.kind}, that of recordings"
    if folder.absolute() not in clip.path.absolute().parents or not clip.path.is_file():
        return f"has no file in the stage's folder ({clip.path})"
    if clip.condition == "anomaly" and clip.split != "test":
        return "is to be trained on and anomalous"
    for parent in clip.parents:
        if parent not in clip_of:
            return f"has the parent {parent}, which the stage was not given"
    if any(clip_of[parent].split == "test" for parent in clip.parents) or clip.split == "test":
        if not cls.from_tests:
            return "is made of a test clip, which the stage does not declare (from_tests)"
        if clip.split != "test" or clip.condition != "unknown":
            return "is made of a test clip, but not of split test and unknown condition"
    if clip.parents:
        parent_clip = clip_of[clip.parents[0]]
        # Of a condition without clips, a generated one comes from the nearest.
        of_condition = () if clip.kind == "generated" else ("section", "domain", "attributes")
        for name in ("machine", *of_condition, "split", "corpus", "year"):
            if getattr(clip, name) != getattr(parent_clip, name):
                return f"has another {name} than its parent: {getattr(clip, name)!r}"
    elif not clip.machine or clip.split != "train":
        return "has neither parents, nor a machine and the split train"
    return ""

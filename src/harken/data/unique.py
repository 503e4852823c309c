"""Clips that a score table could not tell apart: official scores are joined by names without endings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harken.core.errors import HarkenError
from harken.core.names import joined
from harken.data.clips import Clip
from harken.data.names import without_suffix

#: the finding on them
SAME_NAME = "two clips of one name but for ending or folder, which scores could not be told apart by"


def same_names(clips: Iterable[Clip]) -> Iterator[tuple[Clip, Clip]]:
    """Pairs of clips of one machine and split, recorded in one year, whose names differ in folder or ending only."""
    first: dict[tuple[object, ...], Clip] = {}
    for clip in clips:
        key = (clip.corpus, clip.year, clip.machine, clip.split, joined(without_suffix(clip.path.name)))
        if clip.recorded and clip.machine and clip.split and first.setdefault(key, clip) is not clip:
            yield first[key], clip


def check_names(clips: Iterable[Clip]) -> None:
    """Raise HarkenError, naming the first two, where clips of a machine have one name."""
    for clip, namesake in same_names(clips):
        raise HarkenError(
            f"has the name of {clip.clip_id}, but for ending or folder: their scores could not be told apart",
            file=namesake.path, next_step="Remove or rename one of them; harken data check lists all",
        )  # fmt: skip

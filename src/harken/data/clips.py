"""The clips table: one row a recording, whatever corpus it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harken.core.errors import HarkenError
from harken.data.names import attribute_pairs, parse_name, without_suffix

Split = Literal["train", "test", "supplemental"]
Domain = Literal["source", "target", "unknown"]
Condition = Literal["normal", "anomaly", "unknown"]
Kind = Literal["machine", "clean", "noise", "generated", "separated", "mixed"]
Payload = Literal["sound", "spectrogram"]

#: kinds of clips that were made of others, and not recorded
DERIVED: frozenset[Kind] = frozenset({"generated", "separated", "mixed"})


@dataclass(frozen=True)
class Clip:
    """One recording.

    clip_id: unique within a table. kind: what is to be heard; a `mixed` clip is a recording with sound added.
    sample_rate in Hz, channels, frames: None until the file was opened. parents: ids of the clips that it was made of;
    first the one whose machine, section, domain and attributes it has. payload: what its file holds, a sound or the
    array of a spectrogram.
    """

    clip_id: str
    path: Path
    corpus: str = ""
    year: int | None = None
    split: Split | None = None
    machine: str = ""
    section: str = ""
    domain: Domain = "unknown"
    condition: Condition = "unknown"
    kind: Kind = "machine"
    attributes: dict[str, str] = field(default_factory=dict)
    sample_rate: int | None = None
    channels: int | None = None
    frames: int | None = None
    parents: tuple[str, ...] = ()
    payload: Payload = "sound"

    @property
    def recorded(self) -> bool:
        """Whether it is a recording, and not made of others. Official scores are of recorded clips only."""
        return self.kind not in DERIVED


def derive(parent: Clip, clip_id: str, path: Path, kind: Kind, *, others: Sequence[str] = (), **more: Any) -> Clip:
    """A clip made of `parent`, of the same machine, section, domain, condition, attributes and split.

    others: ids of further parents. more: other fields, such as sample_rate. ValueError for a kind that is recorded.
    """
    if kind not in DERIVED:
        raise ValueError(f"a clip made of others is {', '.join(sorted(DERIVED))}, not {kind}")
    form = {"sample_rate": None, "channels": None, "frames": None, "payload": "sound"}
    return replace(parent, clip_id=clip_id, path=path, kind=kind, parents=(parent.clip_id, *others), **{**form, **more})


def origins(clips: Sequence[Clip]) -> dict[str, str]:
    """clip id -> id of the recording that it was made of, over its first parents; of a recording, its own id. What has
    one origin tells of one recording, and is held out together."""
    parent_of = {clip.clip_id: clip.parents[0] for clip in clips if clip.parents}
    ids = {clip.clip_id for clip in clips}
    found: dict[str, str] = {}
    for clip_id in ids:
        origin, seen = clip_id, {clip_id}
        while origin in parent_of and parent_of[origin] not in seen:
            origin = parent_of[origin]
            seen.add(origin)
        found[clip_id] = origin
    return found


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Sort key that puts `clip_9` before `clip_10`: file-name order is taken for recording order."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def find_recordings(paths: Iterable[str | Path], suffixes: frozenset[str]) -> list[Path]:
    """Audio files named, or below folders named, by `paths`; each once, each folder in natural order.

    A file that is named itself is taken whatever its ending. Raises HarkenError for a path that does not exist
    or a folder without audio.
    """
    found: dict[Path, None] = {}
    for given in map(Path, paths):
        if given.is_dir():
            inside = [
                p
                for p in given.rglob("*")
                if p.suffix.lower() in suffixes
                and not any(part.startswith(".") for part in p.relative_to(given).parts)
                and not p.is_dir()
            ]
            if not inside:
                raise HarkenError(
                    "no audio in this folder",
                    file=given,
                    next_step=f"Put recordings there ({', '.join(sorted(suffixes))}) or name another folder",
                )
            found.update(dict.fromkeys(sorted(inside, key=natural_key)))
        elif given.exists():
            found[given] = None
        else:
            raise HarkenError("there is no such file or folder", file=given, next_step="Check the path")
    return list(found)


def clips_from_files(paths: Sequence[Path]) -> list[Clip]:
    """A row a file. Names that follow the DCASE grammar fill domain, condition, section and split."""
    clips = []
    for path in paths:
        name = parse_name(without_suffix(path.name))
        if name is None:
            clips.append(Clip(clip_id=str(path), path=path))
            continue
        clips.append(
            Clip(
                clip_id=str(path),
                path=path,
                split=name.split,  # type: ignore[arg-type]
                section=name.section,
                domain=name.domain,  # type: ignore[arg-type]
                condition=name.condition,  # type: ignore[arg-type]
                kind=name.kind,  # type: ignore[arg-type]
                attributes=attribute_pairs(name.attributes),
            )
        )
    return clips

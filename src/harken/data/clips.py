"""The clips table: one row per recording, for all corpora."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harken.data.names import attribute_pairs, parse_name, without_suffix

Split = Literal["train", "test", "supplemental"]
Domain = Literal["source", "target", "unknown"]
Condition = Literal["normal", "anomaly", "unknown"]
Kind = Literal["machine", "clean", "noise", "generated", "separated", "mixed"]
Payload = Literal["sound", "spectrogram"]

#: kinds of clips that were derived from other clips
DERIVED: frozenset[Kind] = frozenset({"generated", "separated", "mixed"})


@dataclass(frozen=True)
class Clip:
    """One clip, recorded or derived from others.

    clip_id: unique within a table. kind: of the sound; a `mixed` clip is a recording with sound added. sample_rate: in
    Hz; it, channels and frames are None until the file was opened. parents: ids of the clips that it was derived from;
    the first is the one with the same machine, section, domain and attributes. payload: content of the file, a sound or
    a spectrogram array.
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
        """Whether it was recorded, not derived from others. Official scores use recorded clips only."""
        return self.kind not in DERIVED


def derive(parent: Clip, clip_id: str, path: Path, kind: Kind, *, others: Sequence[str] = (), **fields: Any) -> Clip:
    """Clip derived from `parent`, with its machine, section, domain, condition, attributes and split.

    others: ids of further parents. fields: further fields, such as sample_rate. Raises ValueError if `kind` is one of
    recordings.
    """
    if kind not in DERIVED:
        raise ValueError(f"the kind of a derived clip is {', '.join(sorted(DERIVED))}, not {kind}")
    unknown = {"sample_rate": None, "channels": None, "frames": None, "payload": "sound"}
    return replace(
        parent, clip_id=clip_id, path=path, kind=kind, parents=(parent.clip_id, *others), **{**unknown, **fields}
    )


def origins(clips: Sequence[Clip]) -> dict[str, str]:
    """clip id -> id of the recording that it was derived from, following first parents; recordings map to themselves.

    Clips of the same origin are held out together.
    """
    parent_of = {clip.clip_id: clip.parents[0] for clip in clips if clip.parents}
    ids = {clip.clip_id for clip in clips}
    origin_of: dict[str, str] = {}
    for clip_id in ids:
        origin, seen = clip_id, {clip_id}
        while origin in parent_of and parent_of[origin] not in seen:
            origin = parent_of[origin]
            seen.add(origin)
        origin_of[clip_id] = origin
    return origin_of


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Sort key with `clip_9` before `clip_10`, since file names are assumed to be in recording order."""
    tokens = re.split(r"(\d+)", str(path))
    return [(0, int(token)) if token.isdecimal() else (1, token) for token in tokens if token]


def names_below_common(paths: Sequence[Path]) -> tuple[str, ...]:
    """Paths below their common folder."""
    absolute = [path.absolute() for path in paths]
    parents = [set(path.parents) for path in absolute]
    common = max(set.intersection(*parents), key=lambda parent: len(parent.parts))
    return tuple(path.relative_to(common).as_posix() for path in absolute)


def clips_from_files(paths: Sequence[Path]) -> list[Clip]:
    """One clip per file, with section, domain, condition, split, kind and attributes from DCASE file names."""
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

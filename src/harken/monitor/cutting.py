"""Recordings that last over a minute, or longer than those of a model, are cut into segments of one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harken.audio.decode import truncated
from harken.audio.segments import Form, Segment, cut
from harken.core.errors import AudioError, HarkenError
from harken.detection.rates import parse_period

#: recordings that are longer are cut by themselves, into segments of so many seconds
LONG_S, SEGMENT_S = 60.0, 10.0
#: shortest and longest segments that can be chosen, in seconds
_SHORTEST_S, _LONGEST_S = 0.1, 600.0
#: recordings learned from may differ in length by this factor before they are cut to one length
_ALIKE = 1.1
#: this share of them may be shorter than the common length, and is not learned from
_SHORTER = 0.1
#: a recording is judged as a whole up to so many times the longest learned from
LONGEST = 1.25

AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class Cutting:
    """What recordings are cut into.

    pieces: each recording with what stands in its place: itself, names of its segments (`Segment.path`), or nothing, if
    it is left out for one of `errors`. segments: by name. segment_s: their length; None where nothing is cut.
    """

    pieces: list[tuple[Path, list[Path]]] = field(default_factory=list)
    segments: dict[Path, Segment] = field(default_factory=dict)
    segment_s: float | None = None
    errors: dict[Path, AudioError] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """What stands for all recordings."""
        return [path for _, paths in self.pieces for path in paths]

    def file_of(self, path: Path) -> Path:
        """The recording that one of `paths` is, or is a segment of."""
        segment = self.segments.get(path)
        return path if segment is None else segment.file

    @property
    def notes(self) -> tuple[str, ...]:
        """For the maker of a model."""
        if not self.segments:
            return ()
        files = len({segment.file for segment in self.segments.values()})
        recordings = "1 recording was" if files == 1 else f"{files} recordings were"
        return (
            f"{recordings} cut into {len(self.segments)} segments of {self.segment_s:.3g} s, so that all "
            "are of one length; a rest shorter than that is not learned from",
        )


def check_segment(segment: str) -> float | None:
    """Seconds of `--segment`; None for `auto` and `none`. Raises HarkenError for what is neither."""
    if segment in (AUTO, NONE):
        return None
    try:
        seconds = float(segment)
    except ValueError:
        seconds = parse_period(segment)
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise HarkenError(
            f"segments of {segment} cannot be learned from",
            next_step=f"Choose {_SHORTEST_S:g} to {_LONGEST_S:g} seconds, auto or none",
        )
    return seconds


def cut_to_learn(paths: Sequence[Path], forms: Sequence[Form | None], segment: str) -> Cutting:
    """Segments of one length, where recordings are longer than `LONG_S` or of unlike lengths, or a length is chosen.

    forms: of each recording, None where it cannot be read: it stays as it is. segment: see `check_segment`.
    Automatic segments last `SEGMENT_S`, or as long as shorter recordings among them.
    """
    lengths = np.array([form.seconds for form in forms if form is not None])
    seconds = check_segment(segment)
    uncut = Cutting([(path, [path]) for path in paths])
    if segment == NONE or not len(lengths):
        return uncut
    if seconds is None:
        usable = np.where(lengths > LONG_S, SEGMENT_S, lengths)
        seconds = float(np.quantile(usable, _SHORTER, method="lower"))
        if lengths.max() <= _ALIKE * seconds or (len(lengths) < 2 and lengths.max() <= LONG_S):
            return uncut
    cutting = Cutting(segment_s=seconds)
    for path, form in zip(paths, forms, strict=True):
        if form is not None and form.seconds < seconds / _ALIKE:
            cause = f"lasts {form.seconds:.3g} s, less than the segments of {seconds:.3g} s that others are cut into"
            cutting.pieces.append((path, []))
            cutting.errors[path] = AudioError(cause, file=path, next_step="Choose shorter ones (--segment)")
        else:
            _add(cutting, path, form, seconds, longest_s=_ALIKE * seconds, covering=False)
    return cutting


def cut_to_judge(
    paths: Sequence[Path],
    forms: Sequence[Form | None],
    seconds: float,
    longest_s: float,
    *,
    covering: bool = True,
) -> Cutting:
    """Segments of `seconds` of each recording which is longer than `LONGEST` times the longest learned from.

    covering: the last one ends where the recording does, and overlaps the one before; else a rest is left out.
    """
    cutting = Cutting(segment_s=seconds)
    for path, form in zip(paths, forms, strict=True):
        _add(cutting, path, form, seconds, longest_s=LONGEST * longest_s, covering=covering)
    return cutting


def _add(cutting: Cutting, path: Path, form: Form | None, seconds: float, *, longest_s: float, covering: bool) -> None:
    """longest_s: up to which a recording stays whole."""
    if form is None or form.seconds <= longest_s:
        cutting.pieces.append((path, [path]))
    elif form.given_frames > form.frames:
        cutting.pieces.append((path, []))
        cutting.errors[path] = truncated(form.frames, form.given_frames, form.sample_rate, path)
    else:
        segments = {segment.path: segment for segment in cut(path, form, seconds, covering=covering)}
        cutting.pieces.append((path, list(segments)))
        cutting.segments.update(segments)

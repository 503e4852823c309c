"""Segments of recordings: where to cut, and reading one without decoding the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from harken.audio.containers.content import FileContent
from harken.audio.decode import (
    DEFAULT_FORMATS,
    Audio,
    Limits,
    channel_roles,
    decode,
    open_file,
    opened,
    truncated,
)
from harken.core.errors import AudioError
from harken.core.sentences import Sentence

_BLOCK_FRAMES = 1 << 16
_NAME = re.compile(r"(?P<file>.+)@(?P<start>\d+:\d\d:\d\d(\.\d+)?)-(?P<end>\d+:\d\d:\d\d(\.\d+)?)", re.DOTALL)


@dataclass(frozen=True)
class Form:
    """Form of a recording. frames: in the file; given_frames: more than these if it is cut off."""

    sample_rate: int
    channels: int
    frames: int
    given_frames: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class Segment:
    """Part of a recording: `frames` from frame `start` on."""

    file: Path
    start: int
    frames: int
    sample_rate: int

    @property
    def start_s(self) -> float:
        """Its beginning in the recording, in seconds."""
        return self.start / self.sample_rate

    @property
    def end_s(self) -> float:
        """Its end in the recording, in seconds."""
        return (self.start + self.frames) / self.sample_rate

    @property
    def path(self) -> Path:
        """Its name, in the place of a path: `pump.wav@0:12:00-0:12:10`."""
        return self.file.with_name(segment_name(self.file.name, self.start_s, self.end_s))


def segment_name(file: str, start_s: float, end_s: float) -> str:
    """`file@start-end`, with times as h:mm:ss."""
    return f"{file}@{_clock(start_s)}-{_clock(end_s)}"


def is_segment_name(name: str) -> bool:
    """Whether it is one of `segment_name`."""
    return _NAME.fullmatch(name) is not None


def read_form(path: Path, limits: Limits = Limits(), formats: frozenset[str] = DEFAULT_FORMATS) -> Form:
    """Form of a recording of any length; its samples are decoded only where its header does not say how many.

    Raises AudioError as `decode`, but for files that are cut off and limits on length.
    """
    with (
        open_file(path) as handle,
        opened(_content(handle, path), path, limits, formats, partial=True) as (sound, header),
    ):
        frames = header.frames
        if frames is None:
            frames = 0
            while len(block := sound.read(_BLOCK_FRAMES, dtype="float32")):
                frames += len(block)
        cut_short = any(finding.unusable for finding in header.findings)
        return Form(int(sound.samplerate), sound.channels, frames, max(frames + cut_short, header.stated or 0))


def read_segment(segment: Segment, limits: Limits = Limits(), formats: frozenset[str] = DEFAULT_FORMATS) -> Audio:
    """Decode one segment. Raises AudioError as `decode`, and where the recording ends before it."""
    name = segment.path
    with (
        open_file(segment.file) as handle,
        opened(_content(handle, name), name, limits, formats, partial=True) as (sound, header),
    ):
        if segment.frames * 4 * sound.channels > limits.decoded_bytes:
            raise AudioError(
                f"is over {limits.decoded_bytes / 2**20:.0f} MiB when decoded",
                file=name,
                next_step="Choose shorter segments",
            )
        sound.seek(segment.start)
        samples_SC = sound.read(segment.frames, dtype="float32", always_2d=True)
        if len(samples_SC) < segment.frames or sound.samplerate != segment.sample_rate:
            raise truncated(segment.start + len(samples_SC), segment.start + segment.frames, sound.samplerate, name)
        findings = tuple(finding for finding in header.findings if not finding.unusable)
        roles = channel_roles(sound.channels)
        return Audio(np.ascontiguousarray(samples_SC.T), int(sound.samplerate), roles, findings)


def read_blocks(
    path: Path,
    seconds: float,
    start: int = 0,
    limits: Limits = Limits(),
    formats: frozenset[str] = DEFAULT_FORMATS,
) -> Generator[Audio]:
    """A recording of any length from frame `start` on, in blocks of `seconds`; the last one is what is left.

    Of a damaged recording, it gives what can be decoded. Raises AudioError as `decode`, but for limits on length and
    files that are cut off.
    """
    with (
        open_file(path) as handle,
        opened(_content(handle, path), path, limits, formats, partial=True) as (sound, header),
    ):
        frames = max(1, round(seconds * sound.samplerate))
        left = None if header.frames is None else header.frames - start
        if start:
            sound.seek(start)
        while left is None or left > 0:
            samples_SC = sound.read(frames if left is None else min(frames, left), dtype="float32", always_2d=True)
            if not len(samples_SC):
                return
            left = None if left is None else left - len(samples_SC)
            samples_CS = np.ascontiguousarray(samples_SC.T)
            yield Audio(samples_CS, int(sound.samplerate), channel_roles(sound.channels))


def read_named(path: Path, limits: Limits = Limits(), formats: frozenset[str] = DEFAULT_FORMATS) -> Audio:
    """Decode a recording, or the segment of one whose name (`Segment.path`) it is, to the millisecond.

    Raises AudioError as `decode` and `read_segment`.
    """
    file, times = file_of_name(path), _NAME.fullmatch(path.name)
    if times is None or file == path:
        return decode(path, limits=limits, formats=formats)
    sample_rate = read_form(file, limits, formats).sample_rate
    start, stop = (round(_seconds(times[name]) * sample_rate) for name in ("start", "end"))
    return read_segment(Segment(file, start, stop - start, sample_rate), limits, formats)


def file_of_name(path: Path) -> Path:
    """The recording that a path is, or of which it names a segment."""
    times = _NAME.fullmatch(path.name)
    return path if times is None or path.exists() else path.with_name(times["file"])


def cut(path: Path, form: Form, seconds: float, *, covering: bool) -> list[Segment]:
    """Consecutive segments of `seconds`; at least one, which is the whole of a shorter recording.

    covering: the last one ends with the recording, and overlaps the one before it, if there is a rest of more than a
    hundredth of a segment, which may be a rounded length; otherwise the rest is dropped.
    """
    frames = min(max(1, round(seconds * form.sample_rate)), form.frames)
    starts = list(range(0, form.frames - frames + 1, frames))
    if covering and form.frames - (starts[-1] + frames) > frames // 100:
        starts.append(form.frames - frames)
    return [Segment(path, start, frames, form.sample_rate) for start in starts]


def _content(handle: BinaryIO, name: str | Path) -> FileContent:
    size = os.fstat(handle.fileno()).st_size
    if not size:
        raise AudioError(Sentence("the file is empty"), file=name, next_step="Record it again or remove it")
    return FileContent(handle, size)


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    fraction = f".{milliseconds % 1000:03d}".rstrip("0").rstrip(".")
    return f"{minutes // 60}:{minutes % 60:02d}:{milliseconds // 1000:02d}{fraction}"


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)

"""Decoding of audio files, under limits that are checked before memory is allocated."""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from harken.audio.containers.base import Header, cut_off
from harken.audio.containers.content import Content, Spliced
from harken.audio.header import read_header
from harken.audio.quality import Finding
from harken.core.errors import AudioError
from harken.core.sentences import Sentence

Float32 = NDArray[np.float32]

#: major formats of libsndfile that are read by default
DEFAULT_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC"})
#: all formats that are read: those of libsndfile whose headers `audio.header` compares with what is there
ALL_FORMATS = DEFAULT_FORMATS | {"AIFF", "AU", "CAF", "MP3", "NIST", "OGG", "VOC"}

_BLOCK_FRAMES = 1 << 16
_BUFFER = 1 << 20
#: of those that take stderr away for a while
_QUIET = threading.RLock()


@dataclass(frozen=True)
class Limits:
    """Limits on a recording.

    seconds: length. decoded_bytes: size of the float32 samples of all channels. channels: number. sample_rate: lowest
    and highest, in Hz. file_bytes: size on disk.
    """

    seconds: float = 600.0
    decoded_bytes: int = 256 * 2**20
    channels: int = 8
    sample_rate: tuple[int, int] = (100, 768_000)
    file_bytes: int = 1024 * 2**20


@dataclass(frozen=True)
class Audio:
    """A decoded recording.

    samples_CS: (channels, samples) float32, full scale [-1, 1]. sample_rate: in Hz. roles: one per channel. findings:
    in what the file's header differs from what is there.
    """

    samples_CS: Float32
    sample_rate: int
    roles: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples_CS.shape[1] / self.sample_rate

    def channel(self, role: str) -> Float32:
        """(samples,) of the channel with this role. Raises KeyError if there is none."""
        if role not in self.roles:
            raise KeyError(f"no channel {role!r}; this recording has {', '.join(self.roles)}")
        return self.samples_CS[self.roles.index(role)]


def channel_roles(channels: int) -> tuple[str, ...]:
    """Roles by position: a single channel is near; of two, the first is near and the second far (DCASE 2026)."""
    if channels <= 2:
        return ("near", "far")[:channels]
    return tuple(f"channel{i}" for i in range(channels))


def open_file(path: str | Path) -> BinaryIO:
    """A regular file, opened for reading. Raises AudioError."""
    path = Path(path)
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise AudioError(Sentence("there is no such file"), file=path, next_step="Check the path") from None
    except OSError as error:
        raise AudioError(
            Sentence("cannot be opened ({reason})", reason=str(error.strerror)),
            file=path,
            next_step="Check that it is a readable file",
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise AudioError(Sentence("is not a regular file"), file=path, next_step="Give an audio file")
    return os.fdopen(descriptor, "rb")


def read_file(path: str | Path, limits: Limits = Limits()) -> bytes:
    """Content of a regular file, read once so that the same bytes are hashed and decoded. Raises AudioError."""
    with open_file(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size > limits.file_bytes:
            raise AudioError(
                f"is {size / 2**20:.0f} MiB, over the limit of {limits.file_bytes / 2**20:.0f} MiB",
                file=path,
                next_step="Cut it into shorter recordings",
            )
        try:
            # Room for the limit would be asked of the system for every file.
            data = handle.read(size + 1)
            if len(data) > size:  # it has grown
                data += handle.read(limits.file_bytes - size)
        except OSError as error:
            raise AudioError(
                Sentence("cannot be read ({reason})", reason=str(error.strerror)), file=path, next_step="Check the disk"
            ) from None
    if not data:
        raise AudioError(Sentence("the file is empty"), file=path, next_step="Record it again or remove it")
    return data


def decode(
    source: str | Path | bytes,
    *,
    name: str | Path | None = None,
    limits: Limits = Limits(),
    formats: frozenset[str] = DEFAULT_FORMATS,
) -> Audio:
    """Decode a recording.

    source: a path, or the content of a file. name: the file in error messages (default: the path).
    Raises AudioError if it is not audio of one of `formats`, is cut off, has no samples or exceeds a limit. What its
    header does not count, or never counted, is decoded with a finding. Sample values are checked by `quality`.
    """
    label = name if name is not None else ("<bytes>" if isinstance(source, bytes) else source)
    data = source if isinstance(source, bytes) else read_file(source, limits)
    with opened(data, label, limits, formats) as (sound, header):
        return _decode(sound, label, limits, header)


@contextmanager
def opened(
    content: Content, name: str | Path, limits: Limits, formats: frozenset[str], *, partial: bool = False
) -> Iterator[tuple[sf.SoundFile, Header]]:
    """A recording that is ready to be decoded, and its header; where that misleads, decoders get a complete one.

    name: the file in messages. partial: also one that is cut off. Raises AudioError for what is not read, and for
    errors of the decoder within it.
    """
    header, place = read_header(content, name)
    for finding in header.findings:
        if finding.unusable and not partial:
            raise AudioError(finding.detail, file=name, next_step=finding.next_step)
    head, sound_at = header.rebuilt or (b"", slice(0, len(content) - place))
    if header.container == "MP3":
        place = 0
        sound_at = slice(0, len(content))
    stream = Spliced(head, content, slice(place + sound_at.start, place + sound_at.stop))
    try:
        with (
            _quiet() if header.container == "MP3" else nullcontext(),
            sf.SoundFile(io.BufferedReader(stream, _BUFFER)) as sound,
        ):
            check_form(sound, name, limits, formats)
            yield sound, header
    except (sf.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioError(
            Sentence("cannot be decoded as audio ({reason})", reason=reason),
            file=name,
            next_step="Copy it again or remove it",
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it, what C libraries print to stderr goes nowhere: libmpg123 comments each frame that it dislikes."""
    with _QUIET:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def audio_of_array(
    samples: NDArray[np.floating], sample_rate: int, name: str | Path, limits: Limits = Limits()
) -> Audio:
    """Recording from an array: (samples,) or (channels, samples) floats in [-1, 1], at `sample_rate` Hz.

    Raises AudioError for another shape or type, without samples, and beyond a limit.
    """
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"is an array of shape {samples.shape} and type {samples.dtype}",
            file=name,
            next_step="Pass floats in [-1, 1] of shape (samples,) or (channels, samples)",
        )
    samples_CS = np.atleast_2d(np.asarray(samples, dtype=np.float32))
    channels, frames = samples_CS.shape
    if channels > limits.channels:
        raise AudioError(
            f"has {channels} channels, over the limit of {limits.channels}",
            file=name,
            next_step="Pass (channels, samples), with the channels of this machine only",
        )
    _check_rate(sample_rate, name, limits)
    if frames == 0 or channels == 0:
        raise AudioError(Sentence("holds no samples"), file=name, next_step="Record it again or remove it")
    if frames > limits.seconds * sample_rate or samples_CS.nbytes > limits.decoded_bytes:
        raise AudioError(
            f"is longer than {limits.seconds:g} s or over {limits.decoded_bytes / 2**20:.0f} MiB",
            file=name,
            next_step="Cut it into shorter recordings",
        )
    return Audio(samples_CS, int(sample_rate), channel_roles(channels))


def _check_rate(sample_rate: int, name: str | Path, limits: Limits) -> None:
    lowest, highest = limits.sample_rate
    if not lowest <= sample_rate <= highest:
        raise AudioError(
            f"has a sample rate of {sample_rate} Hz, outside {lowest}-{highest} Hz",
            file=name,
            next_step="Check the recorder's settings",
        )


def check_form(sound: sf.SoundFile, label: str | Path, limits: Limits, formats: frozenset[str]) -> None:
    """Raise AudioError for a format, a number of channels or a rate that is not read."""
    if sound.format not in formats:
        hint = "Allow every format (--formats all)" if sound.format in ALL_FORMATS else "Convert it to WAV or FLAC"
        raise AudioError(f"is {sound.format}, which is not read by default", file=label, next_step=hint)
    if sound.channels > limits.channels:
        raise AudioError(
            f"has {sound.channels} channels, over the limit of {limits.channels}",
            file=label,
            next_step="Select the channels that belong to this machine",
        )
    _check_rate(sound.samplerate, label, limits)


def truncated(frames: int, header_frames: int, sample_rate: int, name: str | Path) -> AudioError:
    """The error of a file with fewer frames than its header states."""
    finding = cut_off(f"{frames / sample_rate:.2f} s of the {header_frames / sample_rate:.2f} s that its header states")
    return AudioError(finding.detail, file=name, next_step=finding.next_step)


def _decode(sound: sf.SoundFile, label: str | Path, limits: Limits, header: Header) -> Audio:
    max_frames = min(int(limits.seconds * sound.samplerate), limits.decoded_bytes // (4 * sound.channels))
    # Headers may be wrong: blocks are read until the end of the data or beyond the limit.
    blocks: list[NDArray[np.generic]] = []
    frames = 0
    # Samples of 16 bits come in fewer, larger pieces as integers.
    integers = sound.subtype == "PCM_16"
    while frames <= max_frames:
        wanted = min(_BLOCK_FRAMES, max_frames + 1 - frames)
        block = sound.read(wanted, dtype="int16" if integers else "float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block)
        frames += len(block)
    if frames > max_frames:
        length = (
            f"longer than {limits.seconds:g} s"
            if max_frames == int(limits.seconds * sound.samplerate)
            else (f"over {limits.decoded_bytes / 2**20:.0f} MiB when decoded")
        )
        raise AudioError(f"is {length}", file=label, next_step="Cut it into shorter recordings")
    if frames == 0:
        raise AudioError(Sentence("holds no samples"), file=label, next_step="Record it again or remove it")
    if header.frames is not None and frames < header.frames:
        raise AudioError(
            Sentence(
                "is damaged: {frames} of {expected} samples can be decoded", frames=frames, expected=header.frames
            ),
            file=label,
            next_step="Copy it again or remove it",
        )
    # The last block of a coding in blocks is filled up.
    frames = frames if header.frames is None else header.frames
    samples_CS = np.empty((sound.channels, frames), dtype=np.float32)
    start = 0
    for block in blocks:
        samples_CS[:, start : start + len(block)] = block[: frames - start].T
        start += len(block)
    if integers:
        samples_CS *= np.float32(2.0**-15)
    return Audio(samples_CS, int(sound.samplerate), channel_roles(sound.channels), header.findings)

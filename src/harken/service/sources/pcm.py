"""Samples of a stream of bytes: raw PCM in the formats of ALSA, and WAV whose header says what follows."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from harken.audio.containers.riff import StreamHead, read_stream_head
from harken.audio.decode import Limits, decode
from harken.core.errors import AudioError, HarkenError, did_you_mean
from harken.core.sentences import Sentence
from harken.service.sources.base import SourceForm

Float32 = NDArray[np.float32]

#: names as of `arecord -f`, and those that people write -> (bytes of a sample, how it is stored)
_CODINGS = {
    "U8": (1, "u1"), "S16_LE": (2, "<i2"), "S16_BE": (2, ">i2"), "S24_3LE": (3, "<i3"), "S24_LE": (4, "<i4/24"),
    "S32_LE": (4, "<i4"), "S32_BE": (4, ">i4"), "FLOAT_LE": (4, "<f4"), "FLOAT_BE": (4, ">f4"),
    "FLOAT64_LE": (8, "<f8"),
}  # fmt: skip
_ALIASES = {"S16": "S16_LE", "S24": "S24_3LE", "S32": "S32_LE", "F32": "FLOAT_LE", "F32_LE": "FLOAT_LE"}
#: as `sample_format`: the stream begins with a header of WAV
WAV = "WAV"
#: what comes before the sound of a WAV stream, at most
_MOST_HEAD = 1 << 20


class Unpacker(ABC):
    """Bytes, in pieces of any length, to samples. form: known as soon as `unpack` gives samples."""

    form: SourceForm

    @abstractmethod
    def unpack(self, data: bytes) -> Float32 | None:
        """(channels, samples) that are complete with these bytes; None while there are none. Raises AudioError."""


def unpacker(sample_format: str, form: SourceForm, name: str) -> Unpacker:
    """For `WAV`, or raw samples of a format such as `S16_LE`. form: of raw samples. name: of the stream, in messages.

    Raises HarkenError for an unknown format, and raw samples without a rate.
    """
    chosen = _ALIASES.get(sample_format.upper(), sample_format.upper())
    if chosen == WAV:
        return _Wav(name)
    if chosen not in _CODINGS:
        raise HarkenError(
            Sentence("there is no sample format {name!r}", name=sample_format),
            next_step=did_you_mean(chosen, [*_CODINGS, *_ALIASES, WAV]),
        )
    if form.sample_rate is None:
        raise HarkenError(
            Sentence("raw samples do not tell their rate"),
            file=name,
            next_step=Sentence("Give it (--rate 16000), or send WAV"),
        )
    return _Raw(chosen, SourceForm(form.sample_rate, form.channels or 1))


class _Raw(Unpacker):
    def __init__(self, sample_format: str, form: SourceForm) -> None:
        width, self._coding = _CODINGS[sample_format]
        self.form = form
        self._frame = width * (form.channels or 1)
        self._rest = b""

    def unpack(self, data: bytes) -> Float32 | None:
        data = self._rest + data
        complete = len(data) // self._frame * self._frame
        data, self._rest = data[:complete], data[complete:]
        if not data:
            return None
        samples_CS = _samples(data, self._coding).reshape(-1, self.form.channels or 1).T
        return np.ascontiguousarray(samples_CS)


class _Wav(Unpacker):
    """Decoded by the decoder of files, piece by piece, each behind the stream's own header."""

    def __init__(self, name: str) -> None:
        self.form = SourceForm()
        self._name, self._rest = name, b""
        self._head: StreamHead | None = None

    def unpack(self, data: bytes) -> Float32 | None:
        data = self._rest + data
        if self._head is None:
            self._head = read_stream_head(data, self._name)
            if self._head is None:
                if len(data) > _MOST_HEAD:
                    raise AudioError(
                        Sentence("has no sound behind its header"), file=self._name, next_step=Sentence("Send WAV")
                    )
                self._rest = data
                return None
            self.form = SourceForm(self._head.sample_rate, self._head.channels)
            data = data[self._head.start :]
        complete = len(data) // self._head.block_bytes * self._head.block_bytes
        data, self._rest = data[:complete], data[complete:]
        if not data:
            return None
        return decode(self._head.header(complete) + data, name=self._name, limits=Limits()).samples_CS


def _samples(data: bytes, coding: str) -> Float32:
    """(samples,) within [-1, 1]."""
    if coding == "<i3":
        # Each below its sign, in the upper three bytes of four.
        bytes_N3 = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide_N = np.zeros((len(bytes_N3), 4), np.uint8)
        wide_N[:, 1:] = bytes_N3
        return (wide_N.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    if coding == "<i4/24":
        return ((np.frombuffer(data, "<i4") << 8) / 2.0**31).astype(np.float32)
    if coding == "u1":
        return ((np.frombuffer(data, np.uint8).astype(np.float32)) - 128) / np.float32(128)
    samples = np.frombuffer(data, coding)
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    return (samples / 2.0 ** (8 * samples.dtype.itemsize - 1)).astype(np.float32)

"""RIFF, RIFX, RF64 and BW64, and their elder brother W64: WAV by all its names.

Sources: Microsoft, Multimedia Programming Interface 1.0 (1991); EBU Tech 3306 (RF64, 2009); ITU-R BS.2088 (BW64);
Sonic Foundry, W64 (2003).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harken.audio.containers.base import (
    Coding,
    Header,
    SoundData,
    check_form,
    compared,
    incomplete_end,
    stated_length,
)
from harken.audio.containers.content import Content, HeaderError, chunk_name, field, read_int
from harken.audio.quality import Finding
from harken.core.errors import AudioError

#: first bytes -> name of the container and its byte order
KINDS = {
    b"RIFF": ("RIFF", "little"), b"RIFX": ("RIFX", "big"), b"RF64": ("RF64", "little"), b"BW64": ("BW64", "little"),
}  # fmt: skip
#: of the GUIDs of W64 after their first four bytes, which are those of RIFF in lower case
W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_EXTENSIBLE = 0xFFFE
_PCM, _FLOAT, _A_LAW, _MU_LAW = 1, 3, 6, 7
#: coded in blocks, whose samples the header states: Microsoft and IMA ADPCM, GSM 6.10
_BLOCKS = (2, 0x11, 0x31)
#: decoded, but only decoding tells how long they are: NMS ADPCM, G.721, MPEG, MPEG layer III
_OPAQUE = (0x38, 0x40, 0x45, 0x50, 0x55)


@dataclass(frozen=True)
class _Format:
    tag: int
    channels: int
    sample_rate: int
    coding: Coding
    finding: Finding | None = None


def read_riff(content: Content) -> Header:
    """Header of a file that begins with one of `KINDS`. Raises HeaderError."""
    container, order = KINDS[content[:4]]
    if field(content, 8, 4) != b"WAVE":
        kind = content[8:12].decode("latin-1")
        raise HeaderError(f"is {container}, but of {kind!r} instead of sound", "Give an audio file")
    walk = partial(_next_chunk, order=order)
    chunks, unpadded = _chunks(content, walk)
    if b"data" not in chunks:
        raise HeaderError("is cut off within its header" if b"fmt " in chunks else "has no chunk of sound")
    if b"fmt " not in chunks or chunks[b"fmt "] > chunks[b"data"]:
        raise HeaderError("does not say how its sound is coded (no chunk 'fmt ')")
    body = field(content, chunks[b"fmt "] + 8, read_int(content, chunks[b"fmt "] + 4, 4, order))
    form = _format(body, order)
    start = chunks[b"data"] + 8
    stated = read_int(content, start - 4, 4, order)
    if stated == 0xFFFFFFFF and b"ds64" in chunks:
        stated = read_int(content, chunks[b"ds64"] + 16, 8, order)
    samples = _stated_samples(content, chunks, form, order)
    data = SoundData(start, None, form.coding, walk, padding=2, samples=samples)
    length = stated_length(content, data, stated, 2**32 if stated < 2**32 else 2**64)
    findings: tuple[Finding, ...] = (form.finding,) if form.finding else ()
    if unpadded:
        detail = "has a chunk of odd length without padding before its sound"
        findings += (Finding("damaged header", detail, "Write it again with another program", False, harmless=True),)
    if length is not None:
        _check_single(content, start + length, walk)
    header = compared(
        container, content, form.sample_rate, form.channels,
        replace(data, length=length),
        partial(_rebuilt, body=body, order=order, tag=form.tag, coding=form.coding),
        misleading=unpadded or container == "BW64", findings=findings,
    )  # fmt: skip
    size = read_int(content, 4, 4, order)
    missing = 8 + size - len(content)
    # Some writers count the first 8 bytes, or a padding byte that they leave out; some know no size.
    if missing > 1 and missing != 8 and size < 2**31 - 2**16 and not header.findings:
        return replace(header, findings=(incomplete_end(f"{missing} bytes that its header states"),))
    return header


def read_w64(content: Content) -> Header:
    """Header of a file that begins with `W64_RIFF`. Raises HeaderError."""
    if field(content, 24, 16) != b"wave" + _W64_TAIL:
        raise HeaderError("is W64, but not of sound", "Give an audio file")
    chunks: dict[bytes, int] = {}
    place = 40
    while b"data" not in chunks and (chunk := _next_w64(content, place)) is not None:
        chunks.setdefault(chunk[0], place)
        place = chunk[1]
    if b"data" not in chunks or b"fmt " not in chunks:
        raise HeaderError("is cut off within its header")
    body = field(content, chunks[b"fmt "] + 24, max(0, read_int(content, chunks[b"fmt "] + 16, 8) - 24))
    form = _format(body, "little")
    start = chunks[b"data"] + 24
    data = SoundData(start, None, form.coding, _next_w64, padding=8)
    data = replace(data, length=stated_length(content, data, read_int(content, start - 8, 8) - 24, 2**64))
    return compared(
        "W64", content, form.sample_rate, form.channels, data,
        partial(_rebuilt, body=body, order="little", tag=form.tag, coding=form.coding),
        findings=(form.finding,) if form.finding else (),
    )  # fmt: skip


@dataclass(frozen=True)
class StreamHead:
    """The header of WAV that is still being written. start: of the sound; block_bytes: of a sample of all channels."""

    sample_rate: int
    channels: int
    start: int
    block_bytes: int
    header: Callable[[int], bytes]


def read_stream_head(content: bytes, name: str | Path) -> StreamHead | None:
    """Header of a stream of WAV that begins like this, and one of a file with so many bytes of its sound.

    None while the sound has not begun. Lengths that it states are those of placeholders. name: in messages. Raises
    AudioError for what is no WAV of samples that can be decoded one by one.
    """
    try:
        if len(content) < 12:
            return None
        if content[:4] not in KINDS or content[8:12] != b"WAVE":
            raise HeaderError("does not begin with a header of WAV", "Send WAV, or give the format of raw samples")
        order = KINDS[content[:4]][1]
        chunks, _ = _chunks(content, partial(_next_chunk, order=order))
        if b"data" not in chunks:
            return None
        if b"fmt " not in chunks:
            raise HeaderError("does not say how its sound is coded (no chunk 'fmt ')")
        body = field(content, chunks[b"fmt "] + 8, read_int(content, chunks[b"fmt "] + 4, 4, order))
        form = _format(body, order)
        check_form(form.sample_rate, form.channels)
        if form.coding.block_samples != 1 or form.coding.block_bytes <= 0:
            raise HeaderError("is coded in blocks of several samples", "Send PCM")
    except HeaderError as error:
        raise AudioError(error.cause, file=name, next_step=error.next_step) from None
    rebuild = partial(_rebuilt, body=body, order=order, tag=form.tag, coding=form.coding)
    return StreamHead(form.sample_rate, form.channels, chunks[b"data"] + 8, form.coding.block_bytes, rebuild)


def _chunks(content: Content, walk: partial[tuple[bytes, int] | None]) -> tuple[dict[bytes, int], bool]:
    """Places of the chunks up to the sound, by name; and whether one of odd length has no padding."""
    chunks: dict[bytes, int] = {}
    place, unpadded = 12, False
    while b"data" not in chunks and (chunk := walk(content, place)) is not None:
        name, following = chunk
        chunks.setdefault(name, place)
        if name != b"data" and following < len(content) and not chunk_name(content[following : following + 4]):
            size = int.from_bytes(content[place + 4 : place + 8], walk.keywords["order"])
            if size % 2 and chunk_name(content[following - 1 : following + 3]):
                following, unpadded = following - 1, True
        place = following
    return chunks, unpadded


def _next_chunk(content: Content, place: int, order: str) -> tuple[bytes, int] | None:
    head = content[place : place + 8]
    if len(head) < 8 or not chunk_name(head[:4]):
        return None
    size = int.from_bytes(head[4:], order)  # type: ignore[arg-type]
    return head[:4], place + 8 + size + size % 2


def _next_w64(content: Content, place: int) -> tuple[bytes, int] | None:
    head = content[place : place + 24]
    if len(head) < 24 or not chunk_name(head[:4]):
        return None
    size = max(24, int.from_bytes(head[16:], "little"))
    return head[:4], place + size + -size % 8


def _format(body: bytes, order: str) -> _Format:
    """The chunk `fmt `."""
    tag, channels = read_int(body, 0, 2, order), read_int(body, 2, 2, order)
    sample_rate, block, bits = read_int(body, 4, 4, order), read_int(body, 12, 2, order), read_int(body, 14, 2, order)
    if tag == _EXTENSIBLE:
        tag = read_int(body, 24, 2, order)
    if tag in (_PCM, _FLOAT, _A_LAW, _MU_LAW):
        width = 1 if tag in (_A_LAW, _MU_LAW) else -(-bits // 8)
        if not width:
            raise HeaderError("has samples of 0 bits in its header")
        expected = channels * width
        # 24 bits in blocks of 32 are read as such.
        if block in (expected, 4 * channels if bits == 24 else expected):
            return _Format(tag, channels, sample_rate, Coding(block))
        detail = f"its header contradicts itself: {block} bytes per sample of {channels} channels of {bits} bits"
        finding = Finding("damaged header", detail, "Check the recorder; write it again", unusable=False)
        return _Format(tag, channels, sample_rate, Coding(expected), finding)
    if tag in _BLOCKS:
        samples = int.from_bytes(body[18:20], order)  # type: ignore[arg-type]
        return _Format(tag, channels, sample_rate, Coding(block, samples) if samples else Coding(0))
    if tag in _OPAQUE:
        return _Format(tag, channels, sample_rate, Coding(0))
    raise HeaderError(f"is coded in a way that is not read (format 0x{tag:04x})", "Convert it to WAV or FLAC")


def _stated_samples(content: Content, chunks: dict[bytes, int], form: _Format, order: str) -> int | None:
    """Of the chunk `fact`, or of `ds64`, for codings in blocks."""
    if form.coding.block_samples <= 1 or b"fact" not in chunks:
        return None
    samples = read_int(content, chunks[b"fact"] + 8, 4, order)
    if samples == 0xFFFFFFFF and b"ds64" in chunks:
        samples = read_int(content, chunks[b"ds64"] + 24, 8, order)
    return samples or None


def _check_single(content: Content, place: int, walk: partial[tuple[bytes, int] | None]) -> None:
    """Raise HeaderError for a second chunk of sound."""
    place += place % 2
    while place < len(content) and (chunk := walk(content, place)) is not None:
        if chunk[0] == b"data":
            raise HeaderError("has two chunks of sound (two data chunks)", "Split it into one file per recording")
        place = chunk[1]


def _rebuilt(length: int, *, body: bytes, order: str, tag: int, coding: Coding) -> bytes:
    """A complete header in RIFF, or RIFX, for so many bytes of sound."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + len(content).to_bytes(4, order) + content + b"\0" * (len(content) % 2)  # type: ignore[arg-type]

    head = b"WAVE" + chunk(b"fmt ", body)
    if tag not in (_PCM, _EXTENSIBLE):
        head += chunk(b"fact", (coding.samples(length) or 0).to_bytes(4, order))  # type: ignore[arg-type]
    size = len(head) + 8 + length
    kind = b"RIFF" if order == "little" else b"RIFX"
    return kind + size.to_bytes(4, order) + head + b"data" + length.to_bytes(4, order)  # type: ignore[arg-type]

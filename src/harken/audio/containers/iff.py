"""AIFF and AIFC, and the other containers with big-endian headers: AU and CAF.

Sources: Apple, AIFF 1.3 (1989) and AIFF-C (1991); Sun, audio(5); Apple, Core Audio Format 1.0 (2006).
"""

from __future__ import annotations

import struct
from functools import partial

from harken.audio.containers.base import Coding, Header, SoundData, compared, stated_length
from harken.audio.containers.content import Content, HeaderError, chunk_name, field, read_int

#: bytes per sample of the codings of AIFC; b"" is AIFF's; None: as the header's bits say
_AIFC = {
    b"": None, b"NONE": None, b"twos": None, b"sowt": None, b"in24": 3, b"in32": 4, b"42n1": 3, b"23ni": 4, b"raw ": 1,
    b"fl32": 4, b"FL32": 4, b"fl64": 8, b"FL64": 8, b"ulaw": 1, b"ULAW": 1, b"alaw": 1, b"ALAW": 1,
}  # fmt: skip
#: bytes per sample of the codings of AU; 0: only decoding tells
_AU = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 23: 0, 25: 0, 26: 0, 27: 1}


def read_aiff(content: Content) -> Header:
    """Header of a file that begins with `FORM`. Raises HeaderError."""
    kind = field(content, 8, 4)
    if kind not in (b"AIFF", b"AIFC"):
        raise HeaderError(f"is IFF, but of {kind.decode('latin-1')!r} instead of sound", "Give an audio file")
    chunks: dict[bytes, int] = {}
    place = 12
    while b"SSND" not in chunks and (chunk := _next_chunk(content, place)) is not None:
        chunks.setdefault(chunk[0], place)
        place = chunk[1]
    if b"COMM" not in chunks or b"SSND" not in chunks:
        if b"SSND" in chunks and (common := _common_behind(content, place)) is not None:
            chunks[b"COMM"] = common
        else:
            raise HeaderError("is cut off within its header")
    body = field(content, chunks[b"COMM"] + 8, read_int(content, chunks[b"COMM"] + 4, 4, "big"))
    channels, packets, bits = read_int(body, 0, 2, "big"), read_int(body, 2, 4, "big"), read_int(body, 6, 2, "big")
    sample_rate = _extended(field(body, 8, 10))
    coding = _coding_of_aiff(body[18:22] if kind == b"AIFC" else b"", channels, bits)
    start = chunks[b"SSND"] + 16 + read_int(content, chunks[b"SSND"] + 8, 4, "big")
    stated = read_int(content, chunks[b"SSND"] + 4, 4, "big")
    length = stated_length(content, SoundData(start, 0, coding, _next_chunk, padding=2), stated - 8)
    samples = packets * coding.block_samples or None
    if length is None and coding.block_bytes and packets and packets * coding.block_bytes <= len(content) - start:
        length = packets * coding.block_bytes
    return compared(
        kind.decode(), content, sample_rate, channels,
        SoundData(start, length, coding, _next_chunk, padding=2, samples=samples),
        partial(_rebuilt_aiff, kind=kind, body=body, coding=coding),
    )  # fmt: skip


def read_au(content: Content) -> Header:
    """Header of a file that begins with `.snd`, or `dns.` where it is little-endian. Raises HeaderError."""
    order = "big" if content[:4] == b".snd" else "little"
    start, stated, code, sample_rate, channels = (read_int(content, 4 + 4 * place, 4, order) for place in range(5))
    if code not in _AU:
        raise HeaderError(f"is AU, coded in a way that is not read ({code})", "Convert it to WAV or FLAC")
    if start < 24 or start > len(content):
        raise HeaderError("is cut off within its header")
    coding = Coding(_AU[code] * channels)
    length = stated_length(content, SoundData(start, 0, coding), stated)

    def rebuild(size: int) -> bytes:
        return content[:8] + size.to_bytes(4, order) + content[12:start]  # type: ignore[arg-type]

    return compared("AU", content, sample_rate, channels, SoundData(start, length, coding), rebuild)


def read_caf(content: Content) -> Header:
    """Header of a file that begins with `caff`. Raises HeaderError."""
    place, chunks = 8, dict[bytes, int]()
    while b"data" not in chunks and (chunk := _next_of_caf(content, place)) is not None:
        chunks.setdefault(chunk[0], place)
        place = chunk[1]
    if b"data" not in chunks or b"desc" not in chunks:
        raise HeaderError("is cut off within its header")
    (rate,) = struct.unpack(">d", field(content, chunks[b"desc"] + 12, 8))
    block, packet, channels = (read_int(content, chunks[b"desc"] + 28 + 4 * place, 4, "big") for place in range(3))
    coding = Coding(block, packet) if block and packet else Coding(0)
    begin = chunks[b"data"]
    start = begin + 16
    stated = read_int(content, begin + 4, 8, "big")
    length = stated_length(content, SoundData(start, 0, coding, _next_of_caf), stated - 4, 2**64)

    def rebuild(size: int) -> bytes:
        return content[: begin + 4] + (size + 4).to_bytes(8, "big") + content[begin + 12 : start]

    sample_rate = int(rate) if 0 < rate < 2**31 else 0
    return compared(
        "CAF", content, sample_rate, channels, SoundData(start, length, coding, _next_of_caf), rebuild
    )  # fmt: skip


def _next_chunk(content: Content, place: int) -> tuple[bytes, int] | None:
    head = content[place : place + 8]
    if len(head) < 8 or not chunk_name(head[:4]):
        return None
    size = int.from_bytes(head[4:], "big")
    return head[:4], place + 8 + size + size % 2


def _next_of_caf(content: Content, place: int) -> tuple[bytes, int] | None:
    head = content[place : place + 12]
    if len(head) < 12 or not chunk_name(head[:4]):
        return None
    return head[:4], place + 12 + int.from_bytes(head[4:], "big")


def _common_behind(content: Content, place: int) -> int | None:
    """Place of the chunk `COMM` behind the sound, where it may stand too."""
    while (chunk := _next_chunk(content, place)) is not None:
        if chunk[0] == b"COMM":
            return place
        place = chunk[1]
    return None


def _coding_of_aiff(code: bytes, channels: int, bits: int) -> Coding:
    if code == b"ima4":
        return Coding(34 * channels, 64)
    if code == b"GSM ":
        return Coding(0)
    if code not in _AIFC:
        raise HeaderError(f"is coded in a way that is not read ({code.decode('latin-1')})", "Convert it to WAV or FLAC")
    width = _AIFC[code]
    return Coding((-(-bits // 8) if width is None else width) * channels)


def _extended(data: bytes) -> int:
    """A whole number from 80 bits of IEEE 754 extended precision; 0 for what is none."""
    exponent = int.from_bytes(data[:2], "big") - 16383
    return int.from_bytes(data[2:], "big") >> 63 - exponent if 0 <= exponent < 32 else 0


def _rebuilt_aiff(length: int, *, kind: bytes, body: bytes, coding: Coding) -> bytes:
    """A complete header in AIFF or AIFC for so many bytes of sound."""
    packets = (coding.samples(length) or 0) // coding.block_samples
    common = body[:2] + packets.to_bytes(4, "big") + body[6:]
    common += b"\0" * (len(common) % 2)
    version = b"FVER" + (4).to_bytes(4, "big") + b"\xa2\x80\x51\x40" if kind == b"AIFC" else b""
    head = kind + version + b"COMM" + len(body).to_bytes(4, "big") + common
    size = len(head) + 16 + length
    return b"FORM" + size.to_bytes(4, "big") + head + b"SSND" + (length + 8).to_bytes(4, "big") + bytes(8)

"""VOC and NIST SPHERE.

Sources: Creative Labs, VOC (1994); NIST, SPHERE header.
"""

from __future__ import annotations

from dataclasses import replace

from harken.audio.containers.base import Coding, Header, SoundData, compared, incomplete_end
from harken.audio.containers.content import Content, HeaderError, field, read_int

VOC = b"Creative Voice File\x1a"
NIST = b"NIST_1A\n"
#: bytes per sample of the codings of VOC; the others are of lower quality
_VOC = {0: 1, 4: 2, 6: 1, 7: 1}


def read_voc(content: Content) -> Header:
    """Header of a file that begins with `VOC`, with one block of sound. Raises HeaderError."""
    place = read_int(content, 20, 2)
    kind, size = read_int(content, place, 1), read_int(content, place + 1, 3)
    if kind == 9:
        sample_rate, channels = read_int(content, place + 4, 4), read_int(content, place + 9, 1)
        code, start = read_int(content, place + 10, 2), place + 16
    elif kind == 1:
        sample_rate, channels = 1_000_000 // (256 - read_int(content, place + 4, 1)), 1
        code, start = read_int(content, place + 5, 1), place + 6
    else:
        raise HeaderError(f"is VOC that begins with a block of kind {kind}", "Convert it to WAV or FLAC")
    if code not in _VOC:
        raise HeaderError(f"is coded in a way that is not read (VOC {code})", "Convert it to WAV or FLAC")
    length = size - (start - place - 4)
    coding = Coding(_VOC[code] * channels)
    end = start + length
    # Some writers count the mark at the end as sound.
    ended = read_int(content, end, 1) == 0 if end < len(content) else content[end - 1 : end] == b"\0"
    if end < len(content) and not ended:
        raise HeaderError("has several blocks of sound", "Convert it to WAV or FLAC")
    header = compared("VOC", content[:end], sample_rate, channels, SoundData(start, length, coding))
    if not header.findings and not ended:
        return replace(header, findings=(incomplete_end("its end mark"),))
    return replace(header, frames=None if header.findings else header.frames)


def read_nist(content: Content) -> Header:
    """Header of a file that begins with `NIST`. Raises HeaderError."""
    try:
        start = int(field(content, 8, 8))
        lines = [line.split(None, 2) for line in field(content, 16, max(0, start - 16)).decode("latin-1").split("\n")]
        values = {words[0]: words[2].strip() for words in lines if len(words) == 3}
        rate, channels = int(values["sample_rate"]), int(values.get("channel_count", 1))
        width, count = int(values.get("sample_n_bytes", 2)), int(values.get("sample_count", 0))
    except (ValueError, KeyError):
        raise HeaderError("is NIST SPHERE with a header that is not complete") from None
    if values.get("sample_coding", "pcm").split(",")[0] not in ("pcm", "ulaw", "mu-law", "alaw", "raw"):
        raise HeaderError(f"is NIST SPHERE coded as {values['sample_coding']}", "Convert it to WAV or FLAC")
    coding = Coding(max(1, width) * channels)
    length = count * coding.block_bytes or (None if len(content) > start else 0)
    return compared("NIST", content, rate, channels, SoundData(start, length, coding))

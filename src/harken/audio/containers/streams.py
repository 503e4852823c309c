"""FLAC, Ogg and MP3: frames of coded sound, of which the last tells whether all is there.

Sources: RFC 9639 (FLAC); RFC 3533 (Ogg), RFC 7845 (Opus in Ogg), Xiph, Vorbis I; ISO 11172-3 and 13818-3 (MP3),
with the frames of Xing and Info that LAME writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from harken.audio.containers.base import Header, check_form, cut_off, several_recordings, unfinished
from harken.audio.containers.content import Content, HeaderError, field, is_tag, read_int
from harken.audio.quality import Finding

#: no frame of FLAC is longer, in bytes: 8 channels of 32 bits
_LONGEST_FRAME = 2**21
#: a damaged FLAC is coded again, without loss
_AGAIN = "ffmpeg -i FILE NEW_FILE.flac"
_STREAM = b"fLaC\x00\x00\x00\x22"
_PIECE = 1 << 22


def read_flac(content: Content) -> Header:
    """Header of a file that begins with `fLaC`. Raises HeaderError."""
    info = field(content, 8, 34)
    if field(content, 4, 1)[0] & 0x7F:
        raise HeaderError("is FLAC that does not begin with its header")
    packed = int.from_bytes(info[10:18], "big")
    sample_rate, channels, stated = packed >> 44, (packed >> 41 & 7) + 1, packed & (2**36 - 1)
    check_form(sample_rate, channels)
    start = _audio_of_flac(content)
    end, findings = _end_of_flac(content)
    last = _last_frame(content, start, end, int.from_bytes(info[7:10], "big"), int.from_bytes(info[:2], "big"))
    if last is None or not last.complete:
        before = 0 if last is None else last.sample
        if stated:
            missing = f"{before / sample_rate:.2f} s of the {stated / sample_rate:.2f} s that its header states"
            incomplete = "" if before + 65536 < stated else "its last frame is not complete, "
            findings.append(cut_off(incomplete + missing, _AGAIN))
        elif not before:
            findings.append(cut_off("it ends with its header"))
        if stated or not before:
            return Header("FLAC", sample_rate, channels, before, stated or None, tuple(findings))
    assert last is not None
    frames = last.sample + (last.samples if last.complete else 0)
    if not stated:
        besides = "" if last.complete else "a last frame that is not complete, and "
        findings.append(unfinished(f"{frames / sample_rate:.2f} s", besides, _AGAIN))
        complete = (packed & ~(2**36 - 1) | frames).to_bytes(8, "big")
        rebuilt = content[:18] + complete + content[26:start], slice(start, end if last.complete else last.place)
        return Header("FLAC", sample_rate, channels, frames, None, tuple(findings), rebuilt)
    if frames < stated:
        missing = f"{frames / sample_rate:.2f} s of the {stated / sample_rate:.2f} s that its header states"
        findings.append(cut_off(missing, _AGAIN))
    elif frames > stated:
        detail = f"holds {(frames - stated) / sample_rate:.2f} s more than its header states"
        findings.append(Finding("longer than its header", detail, f"Write it again: {_AGAIN}", False))
        frames = stated
    return Header("FLAC", sample_rate, channels, frames, stated, tuple(findings))


def _audio_of_flac(content: Content) -> int:
    """Place of the first frame."""
    place, last = 4, False
    while not last:
        head = field(content, place, 4)
        last, place = bool(head[0] & 0x80), place + 4 + int.from_bytes(head[1:], "big")
    if place > len(content):
        raise HeaderError("is cut off within its header")
    return place


def _end_of_flac(content: Content) -> tuple[int, list[Finding]]:
    """Place behind the last frame of the first stream, and findings on what follows it."""
    for start in range(4, len(content), _PIECE):
        place = content[start : start + _PIECE + len(_STREAM)].find(_STREAM)
        if place >= 0:
            return start + place, [several_recordings(start + place, len(content))]
    end = len(content)
    if is_tag(content, end - 128):
        end -= 128
    tail = content[max(0, end - 2**16) : end]
    zeros = len(tail) - len(tail.rstrip(b"\0"))
    # A frame may end in zeros, but not in many.
    return end - (zeros if zeros > 64 else 0), []


@dataclass(frozen=True)
class _Frame:
    place: int
    sample: int
    samples: int
    complete: bool


def _last_frame(content: Content, start: int, end: int, longest: int, usual: int) -> _Frame | None:
    """The frame that ends at `end`; if none does, the last that begins. longest: bytes of a frame, 0 if unknown.
    usual: samples of a frame."""
    first = max(start, end - (longest + 64 if longest else _LONGEST_FRAME))
    tail = content[first:end]
    place, incomplete, compared = len(tail), None, 0
    while place > 0 and compared < 2 * _LONGEST_FRAME:
        # A negative end would count from the end of the tail: nothing is left before its beginning.
        place = tail.rfind(b"\xff", 0, place)
        if place < 0 or place + 1 >= len(tail) or tail[place + 1] & 0xFE != 0xF8:
            continue
        frame = _frame_head(tail[place : place + 16], usual)
        if frame is None:
            continue
        compared += len(tail) - place
        if _crc(tail[place:], 0x8005, 16) == 0:
            return _Frame(first + place, *frame, complete=True)
        incomplete = incomplete or _Frame(first + place, *frame, complete=False)
    return incomplete


def _frame_head(head: bytes, usual: int) -> tuple[int, int] | None:
    """(first sample, samples) of a frame; None where none begins."""
    if len(head) < 6 or head[3] & 1 or head[2] >> 4 == 0 or head[2] & 15 == 15 or head[3] >> 4 > 10:
        return None
    ones = 8 - (~head[4] & 0xFF).bit_length()
    extra = max(0, ones - 1)
    if ones in (1, 8) or len(head) < 6 + extra:
        return None
    number = head[4] & (0x7F >> ones) if ones else head[4]
    for byte in head[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    place, code = 5 + extra, head[2] >> 4
    if code in (6, 7):
        samples = int.from_bytes(head[place : place + code - 5], "big") + 1
        place += code - 5
    else:
        samples = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    place += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if len(head) <= place or _crc(head[:place], 0x07, 8) != head[place]:
        return None
    return (number if head[1] & 1 else number * usual), samples


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    table = _table(polynomial, bits)
    value, mask = 0, 2**bits - 1
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> bits - 8 ^ byte]
    return value


_TABLES: dict[tuple[int, int], list[int]] = {}


def _table(polynomial: int, bits: int) -> list[int]:
    if (polynomial, bits) not in _TABLES:
        table = []
        for byte in range(256):
            value = byte << bits - 8
            for _ in range(8):
                value = value << 1 ^ (polynomial if value >> bits - 1 else 0)
                value &= 2**bits - 1
            table.append(value)
        _TABLES[polynomial, bits] = table
    return _TABLES[polynomial, bits]


#: first bytes of streams in Ogg that libsndfile does not decode
_OTHER_OGG = {b"\x7fFLAC": "FLAC", b"Speex": "Speex", b"\x80theora": "video", b"fishead": "several streams"}


def read_ogg(content: Content) -> Header:
    """Header of a file that begins with `OggS`. Raises HeaderError."""
    first = field(content, 0, 27)
    packet = field(content, 27 + first[26], 19)
    if packet[:7] == b"\x01vorbis":
        channels, sample_rate, skipped = packet[11], int.from_bytes(packet[12:16], "little"), 0
    elif packet[:8] == b"OpusHead":
        channels, skipped = packet[9], int.from_bytes(packet[10:12], "little")
        # Opus counts at 48 kHz; libsndfile decodes at the recorder's rate, if that is one of Opus's.
        recorded = int.from_bytes(packet[12:16], "little")
        sample_rate = recorded if recorded in (8_000, 12_000, 16_000, 24_000) else 48_000
    else:
        coding = next((name for begins, name in _OTHER_OGG.items() if packet.startswith(begins)), "another coding")
        raise HeaderError(f"is Ogg with {coding}, which is not read", "Convert it: ffmpeg -i FILE NEW_FILE.wav")
    check_form(sample_rate, channels)
    place, granule, ended, findings = 0, 0, False, list[Finding]()
    while place < len(content) and not is_tag(content, place):
        page = content[place : place + 27]
        if page[:4] != b"OggS":
            if not any(page):
                break
            findings.append(cut_off("its pages do not follow each other"))
            break
        if ended and page[5] & 2:
            findings.append(several_recordings(place, len(content)))
            break
        table = content[place + 27 : place + 27 + page[26]] if len(page) == 27 else b""
        following = place + 27 + len(table) + sum(table)
        if len(page) < 27 or len(table) < page[26] or following > len(content):
            break
        if page[6:14] != b"\xff" * 8:
            granule = int.from_bytes(page[6:14], "little")
        ended, place = bool(page[5] & 4), following
    frames = max(0, granule - skipped)
    if packet[:8] == b"OpusHead":
        frames = frames * sample_rate // 48_000
    if not ended:
        findings.append(cut_off(f"its last page is missing; {frames / sample_rate:.2f} s are there"))
    return Header("OGG", sample_rate, channels, None, frames if ended else None, tuple(findings))


_RATES = (44_100, 48_000, 32_000)


def read_mp3(content: Content, place: int = 0) -> Header | None:
    """Header of MPEG layers I to III whose first frame is at `place`; None where none is. Raises HeaderError."""
    head = content[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, rate, bitrate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer == 0 or rate == 3 or bitrate == 15:
        return None
    sample_rate = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    single = head[3] >> 6 == 3
    samples = 384 if layer == 3 else 576 if layer == 1 and version != 3 else 1152
    side = (17 if single else 32) if version == 3 else (9 if single else 17)
    info = place + 4 + side
    findings: tuple[Finding, ...]
    if content[info : info + 4] in (b"Xing", b"Info") and read_int(content, info + 4, 4, "big") & 3 == 3:
        frames, size = read_int(content, info + 8, 4, "big"), read_int(content, info + 12, 4, "big")
        present = len(content) - place - (128 if is_tag(content, len(content) - 128) else 0)
        stated = frames * samples
        findings = (cut_off(f"{present} of the {size} bytes that its header states"),) if present < size else ()
    else:
        stated = 0
        detail = "does not say how long it is, so that nobody can tell whether all of it is there"
        findings = (Finding("unfinished header", detail, "Record WAV or FLAC", unusable=False, harmless=True),)
    return Header("MP3", sample_rate, 1 if single else 2, None, stated or None, findings)

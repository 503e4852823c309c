"""What all containers of sound have in common: a header that states lengths, and the bytes that are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harken.audio.containers.content import Content, HeaderError, chunk_name, is_tag
from harken.audio.quality import Finding

#: how a complete header is made of what is there, without touching the samples
COPY = "ffmpeg -i FILE -c copy NEW_FILE"
#: beginnings of files of sound, which may stand behind another one
MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"fLaC", b"OggS", b".snd", b"caff")
#: chunks that usually follow the sound, of which a size that exceeds the file says that they are cut off
_USUAL_CHUNKS = (
    b"LIST", b"list", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"inst", b"plst", b"fact", b"PEAK", b"JUNK",
    b"junk", b"PAD ", b"FLLR", b"cart", b"_PMX", b"axml", b"chna", b"acid", b"afsp", b"DISP", b"LGWV", b"NAME", b"AUTH",
    b"ANNO", b"(c) ", b"MARK", b"INST", b"COMT", b"APPL", b"FVER", b"info", b"pakt", b"free", b"strg", b"uuid",
)  # fmt: skip
#: so many zero bytes fill a file up to a multiple
_ALIGNMENT = 8
_PIECE = 1 << 20


@dataclass(frozen=True)
class Coding:
    """Bytes of a block of all channels and the samples per channel in it; both 0 where only decoding tells."""

    block_bytes: int
    block_samples: int = 1

    def samples(self, length: int) -> int | None:
        """Samples per channel in so many bytes; an incomplete block of several samples counts as one."""
        if self.block_bytes <= 0:
            return None
        blocks = length // self.block_bytes if self.block_samples == 1 else -(-length // self.block_bytes)
        return blocks * self.block_samples


@dataclass(frozen=True)
class Header:
    """What a file says of its sound, and what it holds.

    container: its name, such as `RIFF`. sample_rate: in Hz. frames: samples per channel that are there; None where only
    decoding tells. stated: those that the header states; None where it does not say. findings: in what they differ.
    rebuilt: (bytes, place) a complete header, and the part of the file that belongs behind it, for decoders that would
    be misled by the file's own; None where that is right.
    """

    container: str
    sample_rate: int
    channels: int
    frames: int | None
    stated: int | None
    findings: tuple[Finding, ...] = ()
    rebuilt: tuple[bytes, slice] | None = None


@dataclass(frozen=True)
class SoundData:
    """Place of the sound in a file.

    start: of its first byte. length: in bytes, as stated; None for a placeholder, or none. samples: per channel, as
    stated elsewhere in the header. coding: see there. walk: the place behind the chunk at a place, as far as there is
    one: (its name, the next place). padding: multiple at which the next chunk begins.
    """

    start: int
    length: int | None
    coding: Coding
    walk: Callable[[Content, int], tuple[bytes, int] | None] | None = None
    padding: int = 1
    samples: int | None = None


def check_form(sample_rate: int, channels: int) -> None:
    """Raise HeaderError for a header without a rate or channels."""
    if sample_rate <= 0 or channels <= 0:
        raise HeaderError(f"has {channels} channels at {sample_rate} Hz in its header")


def compared(
    container: str,
    content: Content,
    sample_rate: int,
    channels: int,
    data: SoundData,
    rebuild: Callable[[int], bytes] | None = None,
    *,
    misleading: bool = False,
    findings: tuple[Finding, ...] = (),
) -> Header:
    """The header of a file whose sound is at `data`, compared with what is there.

    rebuild: makes a header for so many bytes of sound. misleading: decoders need it in any case. findings: further
    ones. Raises HeaderError for no rate and no channels.
    """
    check_form(sample_rate, channels)
    available = max(0, len(content) - data.start)
    length, defects = data.length, list(findings)
    stated = None if length is None else data.coding.samples(length)
    if stated is not None and data.samples is not None and stated - data.coding.block_samples < data.samples <= stated:
        stated = data.samples  # the last block is not full
    present = available if length is None else min(length, available)
    if length is None:
        defects.append(unfinished(_seconds(data.coding.samples(available), available, sample_rate)))
        misleading = True
    elif length > available:
        defects.append(_cut_off(data.coding, available, length, sample_rate))
    else:
        after = what_follows(content, data, length)
        if isinstance(after, Finding):
            defects.append(after)
            misleading = misleading or after.kind == "several recordings"
        elif after is not None:
            present = available
            stated_text = _seconds(data.coding.samples(length), length, sample_rate)
            more = _seconds(data.coding.samples(available - length), available - length, sample_rate)
            defects.append(
                Finding("longer than its header", f"holds {more} more than its header states ({stated_text})",
                        f"If all of it is sound, repair its header: {COPY}", unusable=False)
            )  # fmt: skip
            misleading = True
    frames = data.coding.samples(present)
    if frames is not None and stated is not None and present == length:
        frames = stated
    rebuilt = None
    if misleading and rebuild is not None and not any(finding.unusable for finding in defects):
        rebuilt = rebuild(present), slice(data.start, data.start + present)
    return Header(container, sample_rate, channels, frames, stated, tuple(defects), rebuilt)


def unfinished(seconds: str, besides: str = "", repair: str = COPY) -> Finding:
    """The finding on a header that states no length, with what is there, and something besides. repair: a command."""
    detail = "its header was never finished (the recorder stopped or is still writing, or it is a stream)"
    step = f"Repair it: {repair}"
    return Finding("unfinished header", f"{detail}: {besides}{seconds} are there", step, False, harmless=True)


def cut_off(detail: str, repair: str = COPY) -> Finding:
    """The finding on sound that is missing. repair: a command that keeps what is there."""
    step = f"Copy it again; if there is no more of it, keep what is there: {repair}"
    return Finding("cut off", f"is cut off: {detail}", step, unusable=True)


def several_recordings(place: int, size: int) -> Finding:
    """The finding on a file that goes on with another one."""
    detail = f"is followed by another recording of {(size - place) / 1024:.0f} KiB, which is not read"
    return Finding("several recordings", detail, "Split it into one file per recording", unusable=False)


def incomplete_end(missing: str) -> Finding:
    """The finding on a file that is cut off behind its sound."""
    step = "Copy it again, if what follows the sound is needed"
    return Finding("cut off", f"is cut off behind its sound: {missing}", step, unusable=False, harmless=True)


def stated_length(content: Content, data: SoundData, length: int, end: int = 2**32) -> int | None:
    """The length, None for a placeholder: a number near the largest, `end`, or half of it; or none while sound
    follows."""
    if length >= end - 2**16 or abs(length - end // 2) <= 2**16:
        return None
    if length <= 0:
        return None if len(content) > data.start and what_follows(content, data, 0) == "sound" else 0
    return length


def what_follows(content: Content, data: SoundData, length: int) -> Finding | str | None:
    """What stands behind the sound: None for nothing but chunks and tags, `sound` for what is none of them, or a
    finding on other recordings, zeros, or chunks that are cut off."""
    end = data.start + length
    places = {end + -length % data.padding, end}
    if min(len(content) - place for place in places) <= 0:
        return None
    for place in sorted(places, reverse=True):
        outcome = _walked(content, place, data)
        if outcome != "sound":
            return outcome
    if _only_zeros(content, end):
        if len(content) - end <= _ALIGNMENT:
            return None
        detail = f"is followed by {len(content) - end} zero bytes that its header does not count, left out"
        return Finding("longer than its header", detail, f"Cut them off: {COPY}", unusable=False, harmless=True)
    return "sound"


def _walked(content: Content, place: int, data: SoundData) -> Finding | str | None:
    while place < len(content):
        begins = content[place : place + 8]
        if is_tag(content, place):
            return None
        if begins[:4] in MAGICS and len(content) - place > 8:
            return several_recordings(place, len(content))
        chunk = None if data.walk is None else data.walk(content, place)
        if chunk is None:
            if any(begins) and 0 < len(begins) < 8:
                return incomplete_end("the last chunk has no size") if begins[:4] in _USUAL_CHUNKS else "sound"
            return "sound"
        name, following = chunk
        if following > len(content) + 1:
            if name not in _USUAL_CHUNKS:
                return "sound"
            return incomplete_end(f"{following - len(content)} bytes of the chunk {name.decode('latin-1')!r}")
        if following % 2 == 0 and data.padding == 2 and not chunk_name(content[following : following + 4]):
            following -= chunk_name(content[following - 1 : following + 3])  # a chunk of odd length without padding
        place = following
    return None


def _cut_off(coding: Coding, available: int, length: int, sample_rate: int) -> Finding:
    present, stated = coding.samples(available), coding.samples(length)
    if present is None or stated is None:
        return cut_off(f"{available} of the {length} bytes of sound that its header states")
    seconds, of = f"{present / sample_rate:.2f}", f"{stated / sample_rate:.2f}"
    if seconds != of:
        return cut_off(f"{seconds} s of the {of} s that its header states")
    return cut_off(f"{length - available} bytes of the {of} s that its header states are missing")


def _seconds(samples: int | None, length: int, sample_rate: int) -> str:
    return f"{length} bytes" if samples is None else f"{samples / sample_rate:.2f} s"


def _only_zeros(content: Content, place: int) -> bool:
    return all(not any(content[start : start + _PIECE]) for start in range(place, len(content), _PIECE))

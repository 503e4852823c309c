"""The one reader of headers: what a file says of its sound, compared with what it holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from harken.audio.containers import iff, riff, streams, voices
from harken.audio.containers.base import Header
from harken.audio.containers.content import Content, FileContent, HeaderError
from harken.core.errors import AudioError
from harken.core.sentences import Sentence

_READERS: dict[bytes, Callable[[Content], Header]] = {
    **dict.fromkeys(riff.KINDS, riff.read_riff),
    riff.W64_RIFF[:4]: riff.read_w64,
    b"FORM": iff.read_aiff,
    b".snd": iff.read_au,
    b"dns.": iff.read_au,
    b"caff": iff.read_caf,
    b"fLaC": streams.read_flac,
    b"OggS": streams.read_ogg,
    voices.VOC[:4]: voices.read_voc,
    voices.NIST[:4]: voices.read_nist,
}
#: beginnings of files that are no sound, or none that is read: what they are and what to do
_OTHERS = (
    (0, b"version https://git-lfs", "is a Git LFS pointer instead of the file", "Fetch the file: git lfs pull"),
    (4, b"ftyp", "is MPEG-4 audio, whatever its name", "Convert it: ffmpeg -i FILE NEW_FILE.wav"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "is WMA", "Convert it: ffmpeg -i FILE NEW_FILE.wav"),
    (0, b"#!AMR", "is AMR", "Convert it: ffmpeg -i FILE NEW_FILE.wav"),
    (0, b"\x1a\x45\xdf\xa3", "is Matroska or WebM", "Convert it: ffmpeg -i FILE NEW_FILE.wav"),
    (0, b"MAC ", "is Monkey's Audio", "Convert it: ffmpeg -i FILE NEW_FILE.wav"),
    (0, b"wvpk", "is WavPack", "Convert it: wvunpack FILE"),
    (0, b"PK\x03\x04", "is a zip archive", "Unpack it"),
    (0, b"\x1f\x8b", "is packed with gzip", "Unpack it: gzip -d"),
    (0, b"TDSm", "is TDMS", "Export it as WAV"),
    (0, b"\x89HDF", "is HDF5", "Export it as WAV"),
    (0, b"<", "is a page of HTML or XML", "Download the file itself"),
)
#: so far into a file is looked for the beginning of another, and its first bytes
_PREFIX = 1 << 16
_BEGINNING = re.compile(rb"RI(?:FF|FX)....WAVE|RF64....WAVE|fLaC\0\0\0\x22|OggS\0\x02|FORM....AIF[FC]", re.DOTALL)


def read_header(content: Content, name: str | Path) -> tuple[Header, int]:
    """The header of a file's content, and the bytes before it, which are tags. name: the file in messages.

    Raises AudioError for what is no audio or says nothing of its sound. What is there but not as stated is a finding.
    """
    place = _behind_tags(content)
    behind = content if place == 0 else content[place:]
    reader = _READERS.get(behind[:4])
    try:
        header = reader(behind) if reader is not None else streams.read_mp3(behind)
    except HeaderError as error:
        raise AudioError(error.cause, file=name, next_step=error.next_step) from None
    if header is None:
        raise _no_audio(behind, name)
    return header, place


def read_file_header(path: str | Path) -> Header:
    """`read_header` of a file, of which little is read. Raises AudioError as that does, and where it cannot be read."""
    path = Path(path)
    if not path.is_file():
        cause = "is not a regular file" if path.exists() else "there is no such file"
        raise AudioError(cause, file=path, next_step="Check the path")
    try:
        with path.open("rb") as handle:
            size = path.stat().st_size
            if not size:
                raise AudioError(Sentence("the file is empty"), file=path, next_step="Record it again or remove it")
            return read_header(FileContent(handle, size), path)[0]
    except OSError as error:
        raise AudioError(
            Sentence("cannot be read ({reason})", reason=str(error.strerror)), file=path, next_step="Check the disk"
        ) from None


def _behind_tags(content: Content) -> int:
    """Place behind ID3v2 tags, which stand before any kind of file."""
    place = 0
    while content[place : place + 3] == b"ID3" and len(head := content[place : place + 10]) == 10:
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte & 0x7F
        place += 10 + size + (10 if head[5] & 0x10 else 0)
    return place


def _no_audio(content: Content, name: str | Path) -> AudioError:
    begins = content[:_PREFIX]
    for place, magic, cause, step in _OTHERS:
        if begins[place : place + len(magic)] == magic:
            return AudioError(cause, file=name, next_step=step)
    match = _BEGINNING.search(begins)
    if match:
        cause = f"cannot be decoded as audio: {match.start()} bytes stand before its header"
        return AudioError(cause, file=name, next_step=f"Remove them: tail -c +{match.start() + 1} FILE > NEW_FILE")
    if begins and not any(begins):
        return AudioError(Sentence("holds nothing but zeros"), file=name, next_step="Copy it again or remove it")
    cause = Sentence("cannot be decoded as audio (it begins like none of the formats that are read)")
    return AudioError(cause, file=name, next_step="Convert it to WAV or FLAC, or remove it")

"""Headers of every container compared with what is there: what is cut off, left over, unfinished or of no kind."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from harken.audio.decode import ALL_FORMATS, Audio, decode
from harken.audio.header import read_file_header, read_header
from harken.core.errors import AudioError

RATE, SAMPLES = 16_000, 8_000
FORMS = [
    ("WAV", "PCM_16", "FILE"), ("WAV", "PCM_24", "BIG"), ("WAV", "PCM_U8", "FILE"), ("WAV", "FLOAT", "FILE"),
    ("WAV", "ALAW", "FILE"), ("WAV", "ULAW", "BIG"), ("WAV", "IMA_ADPCM", "FILE"), ("WAV", "MS_ADPCM", "FILE"),
    ("WAV", "GSM610", "FILE"), ("WAVEX", "PCM_24", "FILE"), ("RF64", "PCM_16", "FILE"), ("RF64", "FLOAT", "FILE"),
    ("W64", "PCM_16", "FILE"), ("W64", "ALAW", "FILE"), ("W64", "IMA_ADPCM", "FILE"), ("AIFF", "PCM_16", "FILE"),
    ("AIFF", "PCM_16", "LITTLE"), ("AIFF", "FLOAT", "FILE"), ("AIFF", "ALAW", "FILE"), ("AIFF", "IMA_ADPCM", "FILE"),
    ("AU", "PCM_16", "FILE"), ("AU", "PCM_24", "LITTLE"), ("AU", "ULAW", "FILE"), ("AU", "G721_32", "FILE"),
    ("CAF", "PCM_16", "FILE"), ("CAF", "ALAC_16", "FILE"), ("CAF", "ALAW", "FILE"), ("FLAC", "PCM_16", "FILE"),
    ("FLAC", "PCM_24", "FILE"), ("OGG", "VORBIS", "FILE"), ("OGG", "OPUS", "FILE"), ("MP3", "MPEG_LAYER_III", "FILE"),
    ("VOC", "PCM_16", "FILE"), ("NIST", "PCM_16", "FILE"), ("NIST", "ULAW", "FILE"),
]  # fmt: skip


def sound(channels: int = 1, samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=(samples, channels))).astype(np.float32)


def file_of(kind: str, subtype: str, endian: str = "FILE", samples: np.ndarray | None = None) -> bytes:
    buffer = io.BytesIO()
    samples = sound() if samples is None else samples
    sf.write(buffer, samples, RATE, format=kind, subtype=subtype, endian=endian)
    return buffer.getvalue()


def decoded(data: bytes) -> Audio:
    return decode(data, name="x.wav", formats=ALL_FORMATS)


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


FMT = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
PCM = (sound()[:, 0] * 32767).astype("<i2").tobytes()


def wav(*chunks: bytes, size: int | None = None, head: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return head + struct.pack("<I", len(body) if size is None else size) + body


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_a_whole_file_has_no_findings(form: tuple[str, str, str], tmp_path: Path) -> None:
    data = file_of(*form)
    audio = decoded(data)
    assert not audio.findings
    assert audio.samples_CS.shape[1] == pytest.approx(SAMPLES, abs=1_200)  # codings in blocks are filled up
    (tmp_path / "x").write_bytes(data)
    header = read_file_header(tmp_path / "x")
    assert header == read_header(data, "x")[0]
    assert (header.sample_rate, header.channels) == (audio.sample_rate, 1)
    assert header.frames in (None, audio.samples_CS.shape[1])


@given(form=st.sampled_from(FORMS), share=st.floats(0, 1), channels=st.integers(1, 2))
@settings(max_examples=300)
def test_no_file_that_is_cut_off_passes(form: tuple[str, str, str], share: float, channels: int) -> None:
    if form[1] in ("GSM610", "G721_32"):
        channels = 1
    data = file_of(*form, samples=sound(channels, 3_000))
    whole = decoded(data).samples_CS
    cut = data[: int(share * (len(data) - 1))]
    try:
        audio = decoded(cut)
    except AudioError:
        return
    if not audio.findings:
        np.testing.assert_array_equal(audio.samples_CS, whole)


@given(st.sampled_from(FORMS), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8)), max_size=4), st.booleans())
@settings(max_examples=300)
def test_no_header_crashes_the_reader(form: tuple[str, str, str], changes: list, early: bool) -> None:
    data = bytearray(file_of(*form, samples=sound(1, 1_000)))
    for share, content in changes:
        place = int(share * (100 if early else len(data)))
        data[place : place + len(content)] = content
    with suppress(AudioError):
        assert read_header(bytes(data), "x.wav")[0].sample_rate > 0


def test_a_flac_without_frames_ends() -> None:
    """Bytes like those that begin a frame, and none that does."""
    data = file_of("FLAC", "PCM_16", "FILE", samples=sound(1, 1_000))
    start = data.index(b"\xff\xf8")
    for rest in (b"\x01\xff\x02", b"\xff", b"\xff\xff\x00", b"\x00\xff\xf8\x00"):
        header = read_header(data[:start] + rest, "x.flac")[0]
        assert header.frames == 0


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (("WAV", "PCM_16"), r"is cut off: 0\.42 s of the 0\.50 s"),
        (("WAV", "ALAW"), r"is cut off: 0\.42 s of the 0\.50 s"),
        (("WAV", "IMA_ADPCM"), r"is cut off: 0\.4\d s of the 0\.51 s"),
        (("RF64", "PCM_16"), r"is cut off: 0\.42 s of the 0\.50 s"),
        (("W64", "PCM_16"), r"is cut off: 0\.42 s of the 0\.50 s"),
        (("AIFF", "PCM_16"), r"is cut off: 0\.42 s of the 0\.50 s"),
        (("AU", "PCM_16"), r"is cut off: 0\.42 s of the 0\.50 s"),
        (("CAF", "ALAC_16"), r"is cut off: \d+ of the \d+ bytes"),
        (("FLAC", "PCM_16"), r"is cut off: its last frame is not complete, 0\.26 s of the 0\.50 s"),
        (("OGG", "VORBIS"), "is cut off: its last page is missing"),
        (("MP3", "MPEG_LAYER_III"), r"is cut off: \d+ of the \d+ bytes"),
    ],
)  # fmt: skip
def test_how_much_is_missing_is_said(form: tuple[str, str], message: str) -> None:
    data = file_of(*form)
    with pytest.raises(AudioError, match=message):
        decoded(data[: int(0.85 * len(data))])


def streaminfo_without_length(data: bytes) -> bytes:
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


UNFINISHED = {
    "size 0": wav(chunk(b"fmt ", FMT), chunk(b"data", PCM, 0), size=0),
    "size 0, RIFF 36": wav(chunk(b"fmt ", FMT), chunk(b"data", PCM, 0), size=36),
    "stream": wav(chunk(b"fmt ", FMT), chunk(b"data", PCM, 0xFFFFFFFF), size=0xFFFFFFFF),
    "sox": wav(chunk(b"fmt ", FMT), chunk(b"data", PCM, 0x7FFFF000), size=0x7FFFF024),
    "RF64 without sizes": wav(chunk(b"ds64", bytes(28)), chunk(b"fmt ", FMT), chunk(b"data", PCM, 0xFFFFFFFF),
                              size=0xFFFFFFFF, head=b"RF64"),
    "FLAC": streaminfo_without_length(file_of("FLAC", "PCM_16")),
    "AU": (lambda data: data[:8] + b"\xff" * 4 + data[12:])(file_of("AU", "PCM_16")),
    "AIFF": (lambda data: data[:22] + bytes(4) + data[26:42] + bytes(4) + data[46:])(file_of("AIFF", "PCM_16")),
    "W64": (lambda data: data[:96] + bytes(8) + data[104:])(file_of("W64", "PCM_16")),
    "CAF": (lambda data: data[:4084] + b"\xff" * 8 + data[4092:])(file_of("CAF", "PCM_16")),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFINISHED)
def test_what_an_unfinished_header_has_is_decoded_and_its_repair_told(name: str) -> None:
    audio = decoded(UNFINISHED[name])
    np.testing.assert_allclose(audio.samples_CS[0], sound()[:, 0], atol=2**-14)
    (finding,) = audio.findings
    assert finding.kind == "unfinished header"
    assert finding.harmless
    assert "0.50 s are there" in finding.detail
    assert "ffmpeg -i FILE" in finding.sentence


def test_a_flac_that_is_still_written_is_decoded_up_to_its_last_whole_frame() -> None:
    data = UNFINISHED["FLAC"][:-50]
    audio = decoded(data)
    assert audio.samples_CS.shape[1] == 4_096
    assert "last frame that is not complete, and 0.26 s are there" in audio.findings[0].detail


def test_sound_behind_the_stated_length_is_decoded_with_a_finding() -> None:
    audio = decoded(wav(chunk(b"fmt ", FMT), chunk(b"data", PCM, 8_000)))
    assert audio.samples_CS.shape[1] == SAMPLES
    (finding,) = audio.findings
    assert finding.detail == "holds 0.25 s more than its header states (0.25 s)"
    assert not finding.harmless


@pytest.mark.parametrize(
    "behind",
    [
        b"", chunk(b"LIST", b"INFOICMT\3\0\0\0ab\0"), chunk(b"id3 ", b"ID3\3\0\0\0\0\0\0"), chunk(b"cue ", bytes(28)),
        chunk(b"LIST", b"adtl") + chunk(b"bext", bytes(602)), b"TAG" + bytes(125), b"ID3\4" + bytes(50),
        b"APETAGEX" + bytes(24), chunk(b"odd ", b"abc")[:-1] + chunk(b"next", b"ab"),
    ],
)  # fmt: skip
def test_chunks_and_tags_behind_the_sound_are_fine(behind: bytes) -> None:
    audio = decoded(wav(chunk(b"fmt ", FMT), chunk(b"data", PCM), behind))
    assert audio.samples_CS.shape[1] == SAMPLES
    assert not audio.findings


@pytest.mark.parametrize(
    ("data", "message", "samples"),
    [
        (wav(chunk(b"fmt ", FMT), chunk(b"data", PCM)) * 2, "followed by another recording of 16 KiB", SAMPLES),
        (file_of("FLAC", "PCM_16") * 2, "followed by another recording", SAMPLES),
        (file_of("OGG", "VORBIS") * 2, "followed by another recording", None),
        (wav(chunk(b"fmt ", FMT), chunk(b"data", PCM)) + bytes(1_000), "followed by 1000 zero bytes", SAMPLES),
        (wav(chunk(b"fmt ", FMT), chunk(b"data", PCM), b"LIST\x20\0\0\0INFO"), "is cut off behind its sound", SAMPLES),
        (wav(chunk(b"fmt ", FMT), chunk(b"data", PCM), size=90_000), "is cut off behind its sound", SAMPLES),
        (wav(chunk(b"fmt ", FMT), b"LIST\5\0\0\0abcde" + chunk(b"data", PCM)), "odd length without padding", SAMPLES),
        (wav(chunk(b"fmt ", FMT[:12] + b"\7\0\x10\0"), chunk(b"data", PCM)), "its header contradicts itself", SAMPLES),
    ],
)  # fmt: skip
def test_what_else_is_wrong_is_a_finding(data: bytes, message: str, samples: int | None) -> None:
    audio = decoded(data)
    assert message in audio.findings[0].detail
    assert samples in (None, audio.samples_CS.shape[1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wav(chunk(b"fmt ", FMT), chunk(b"data", PCM), chunk(b"data", PCM)), "two data chunks"),
        (wav(chunk(b"fmt ", FMT)), "is cut off within its header"),
        (wav(chunk(b"data", PCM)), "no chunk 'fmt '"),
        (wav(chunk(b"fmt ", FMT), chunk(b"data", b"")), "holds no samples"),
        (wav(chunk(b"fmt ", b"\x61\1" + FMT[2:]), chunk(b"data", PCM)), r"not read \(format 0x0161\)"),
        (b"RIFF\0\0\0\0AVI ", "of 'AVI ' instead of sound"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\0\0\0\x20ftypM4A " + bytes(20), "MPEG-4 audio"),
        (b"\0" * 500, "nothing but zeros"),
        (b"OggS\0\2" + bytes(20) + b"\1\x33\x7fFLAC" + bytes(60), "Ogg with FLAC, which is not read"),
        (b"abc" + wav(chunk(b"fmt ", FMT), chunk(b"data", PCM)), "3 bytes stand before its header"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(data: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        decoded(data)
    assert caught.value.next_step


def test_tags_before_the_sound_and_bw64_are_read() -> None:
    tag = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)
    for data in (wav(chunk(b"fmt ", FMT), chunk(b"data", PCM)), file_of("FLAC", "PCM_16"), UNFINISHED["FLAC"]):
        assert decoded(tag + data).samples_CS.shape[1] == SAMPLES
    sizes = chunk(b"ds64", struct.pack("<QQQI", 0, len(PCM), SAMPLES, 0))
    data = wav(sizes, chunk(b"fmt ", FMT), chunk(b"data", PCM, 0xFFFFFFFF), size=0xFFFFFFFF, head=b"BW64")
    assert decoded(data).samples_CS.shape[1] == SAMPLES
    assert not decoded(data).findings


def test_the_samples_that_fact_states_are_those_that_are_decoded() -> None:
    data = bytearray(file_of("WAV", "IMA_ADPCM"))
    place = data.index(b"fact") + 8
    data[place : place + 4] = struct.pack("<I", SAMPLES)
    assert decoded(bytes(data)).samples_CS.shape[1] == SAMPLES

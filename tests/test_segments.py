"""Segments of recordings are what the whole has there, and are embedded as files of the same samples are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from conftest import hum
from harken.audio.decode import Limits, decode
from harken.audio.segments import Form, Segment, cut, read_form, read_segment
from harken.core.errors import AudioError
from harken.embeddings.embedder import make_spec
from harken.embeddings.extract import extract
from harken.embeddings.forms import read_forms

RATE = 16_000


def long_hum(seconds: int, first_seed: int = 0) -> np.ndarray:
    """(samples,) of so many one-second clips after each other."""
    return np.concatenate([hum(first_seed + second) for second in range(seconds)])


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_segment_is_what_the_whole_file_has_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long.{suffix}"
    sf.write(path, np.stack([long_hum(3), long_hum(3, 50)], axis=1), RATE)
    form = read_form(path)
    assert form == Form(RATE, 2, 3 * RATE, 3 * RATE)
    whole = decode(path)
    segments = cut(path, form, 0.8, covering=False)
    assert [segment.start for segment in segments] == [0, 12_800, 25_600]
    for segment in segments:
        np.testing.assert_array_equal(
            read_segment(segment).samples_CS, whole.samples_CS[:, segment.start : segment.start + segment.frames]
        )


def test_segments_cover_a_recording_and_are_named_by_their_times() -> None:
    def spans(seconds: float, of: float, *, covering: bool) -> list[tuple[float, float]]:
        form = Form(100, 1, round(100 * seconds), round(100 * seconds))
        return [(each.start_s, each.end_s) for each in cut(Path("a/b.wav"), form, of, covering=covering)]

    assert spans(25, 10, covering=False) == [(0, 10), (10, 20)]
    assert spans(25, 10, covering=True) == [(0, 10), (10, 20), (15, 25)]
    assert spans(20.09, 10, covering=True) == [(0, 10), (10, 20)]
    assert spans(4, 10, covering=True) == [(0, 4)]
    assert Segment(Path("a/b.wav"), 720 * RATE, RATE // 2, RATE).path == Path("a/b.wav@0:12:00-0:12:00.5")
    # Names are those of different segments, however short these are.
    short = cut(Path("b.wav"), Form(1000, 1, 1030, 1030), 0.2, covering=True)
    assert len({segment.path for segment in short}) == len(short) == 6


def test_a_file_that_ends_early_or_is_no_audio_has_a_message(tmp_path: Path) -> None:
    path = tmp_path / "cut_off.wav"
    sf.write(path, long_hum(2), RATE)
    path.write_bytes(path.read_bytes()[: RATE * 2 + 44])
    form = read_form(path)
    assert (form.frames, form.given_frames) == (RATE, 2 * RATE)
    with pytest.raises(AudioError, match=r"is cut off: 1\.00 s of the 1\.50 s"):
        read_segment(Segment(path, RATE // 2, RATE, RATE))
    with pytest.raises(AudioError, match="when decoded"):
        read_segment(Segment(path, 0, RATE, RATE), Limits(decoded_bytes=1000))
    (tmp_path / "no.wav").write_text("no audio")
    for problem in ("no.wav", "missing.wav"):
        with pytest.raises(AudioError):
            read_form(tmp_path / problem)
    assert read_forms([tmp_path / "no.wav", path, tmp_path / "missing.wav"], workers=1) == [None, form, None]


def test_segments_are_embedded_as_recordings_of_the_same_samples(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    sf.write(path, long_hum(3), RATE)
    segments = {each.path: each for each in cut(path, read_form(path), 1, covering=False)}
    parts = [tmp_path / f"{second}.wav" for second in range(3)]
    for second, part in enumerate(parts):
        sf.write(part, hum(second), RATE)
    spec = make_spec(sample_rate=RATE, channels=1)
    store = tmp_path / "store"
    outcomes = list(extract([*segments, *parts], spec, workers=0, store=store, segments=segments))
    for segment, part in zip(outcomes[:3], outcomes[3:], strict=True):
        assert segment.features is not None
        assert part.features is not None
        np.testing.assert_array_equal(segment.features.embedding, part.features.embedding)
        assert segment.features.seconds == 1.0
    # A segment has its own place in the store.
    again = list(extract(segments, spec, workers=1, store=store, segments=segments))
    assert [outcome.cached for outcome in again] == [True] * 3
    assert [outcome.path.name for outcome in again] == [
        "long.wav@0:00:00-0:00:01",
        "long.wav@0:00:01-0:00:02",
        "long.wav@0:00:02-0:00:03",
    ]

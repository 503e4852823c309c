"""The sentence and the region of what differs from all normal recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import harken
from conftest import hum
from harken.embeddings.sketch import STEP_DB, Sketch, make_sketch, sketch_db
from harken.monitor.envelope import Envelope
from harken.monitor.explain import Explanation, explain

BANDS, COLUMNS = 80, 100
HZ = np.linspace(50, 7_950, BANDS).astype(np.float32)


def sketch(level_BC: np.ndarray) -> Sketch:
    """The sketch of a spectrogram in dB."""
    return make_sketch(level_BC.T.astype(np.float32))


def noise(seed: int) -> np.ndarray:
    return -60 + np.random.default_rng(seed).normal(size=(BANDS, COLUMNS))


def strokes(seed: int) -> np.ndarray:
    """Every second, at any time, four tenths of it 40 dB louder than the rest."""
    rng = np.random.default_rng(seed)
    loud = (np.arange(COLUMNS) + rng.integers(10)) % 10 < 4
    return np.where(loud, -30, -70) + rng.normal(size=(BANDS, COLUMNS))


def why(clip_BC: np.ndarray, normal: Callable[[int], np.ndarray], *, anomalous: bool = True) -> Explanation:
    """Against 30 normal recordings, of which `n.wav` is the most alike."""
    envelope = Envelope.of([sketch(normal(seed)) for seed in range(30)], aligned=True)
    return explain(
        sketch_db(sketch(clip_BC)), envelope, centres_hz_B=HZ, seconds=10, nearest="n.wav", anomalous=anomalous
    )


def test_the_region_and_the_sentence_of_a_sound_and_of_a_gap() -> None:
    clip_BC = noise(100)
    clip_BC[28:38, 41:60] += 20
    found = why(clip_BC, noise)
    assert found.sentence.startswith("new energy 2.8-3.8 kHz from 4.1 to 6.0 s, ")
    assert found.sentence.endswith(" dB above any of 30 normal recordings")
    assert (found.low_hz, found.high_hz) == pytest.approx((2_800, 3_800), abs=60)
    assert (found.start_s, found.end_s) == pytest.approx((4.1, 6.0), abs=0.11)
    assert found.change_db == pytest.approx(19, abs=3)
    gap = why(np.where(clip_BC > -50, clip_BC - 40, clip_BC), noise)
    assert gap.sentence.startswith("energy missing 2.8-3.8 kHz from 4.1 to 6.0 s, ")
    assert gap.sentence.endswith(" dB below any of 30 normal recordings")
    assert gap.change_db == pytest.approx(-17, abs=3)
    assert why(noise(101), noise, anomalous=False).sentence == "sounds like the normal recording n.wav"


@pytest.mark.parametrize(("rows", "columns", "change"), [(2, 10, 30), (20, 100, 8), (60, 1, 15), (10, 40, -30)])
def test_the_sentence_of_a_normal_recording_does_not_read_as_an_alarm(rows: int, columns: int, change: float) -> None:
    """It says where the recording differs most, as each normal one does somewhere, and not how rare that is."""
    clip_BC = noise(100)
    clip_BC[10 : 10 + rows, 30 : 30 + columns] += change
    normal, alarm = why(clip_BC, noise, anomalous=False), why(clip_BC, noise)
    assert normal.sentence.startswith("differs most ")
    assert not {"new", "missing", "above", "below", "any"} & set(normal.sentence.split())
    assert " of 30 normal recordings" in alarm.sentence
    assert (normal.low_hz, normal.change_db) == (alarm.low_hz, alarm.change_db)


def test_a_squeal_is_a_tone_and_knocks_are_counted() -> None:
    clip_BC = noise(100)
    clip_BC[29:31, 40:50] += 47
    assert why(clip_BC, noise).sentence.startswith("new tone near 3.0 kHz from 4.0 to 5.0 s, 4")
    clip_BC = noise(100)
    clip_BC[10:70, [12, 40, 77]] += 15
    assert why(clip_BC, noise).sentence.startswith("new knock 1.0-7.0 kHz 3 times, first at 1.2 s, 1")
    clip_BC[10:70, [40, 77]] -= 15
    assert why(clip_BC, noise).sentence.startswith("new knock 1.0-7.0 kHz at 1.2 s, 1")


@pytest.mark.parametrize("height", [10, 25, 40])
def test_a_squeal_between_strokes_makes_no_stroke_odd(height: float) -> None:
    clip_BC = strokes(100)
    clip_BC[40:43, 30:36] = -30 + height
    found = why(clip_BC, strokes)
    assert found.sentence.startswith("new tone near 4.")
    assert (found.start_s, found.end_s) == pytest.approx((3.0, 3.6), abs=0.01)


def test_a_hiss_between_strokes_that_are_louder_is_heard() -> None:
    """Moments are compared with like moments: the strokes mask nothing, and their phase does not matter."""
    leaking_BC = strokes(100)
    hiss_BC = np.random.default_rng(1).normal(-52, 1, (20, COLUMNS))
    leaking_BC[60:] = np.maximum(leaking_BC[60:], hiss_BC)
    found = why(leaking_BC, strokes)
    assert found.low_hz is not None
    assert found.low_hz > 5_700
    assert 12 < (found.change_db or 0) < 20
    assert "times" in found.sentence
    assert "above any like moment of 30" in found.sentence
    assert why(strokes(7), strokes, anomalous=False).sentence == "sounds like the normal recording n.wav"


@pytest.mark.parametrize("share", [0.1, 0.6])
@pytest.mark.parametrize("height", [6, 12, 25])
def test_the_sign_is_right_however_much_of_the_level_the_new_sound_takes(share: float, height: float) -> None:
    """Level normalisation lowers all else; what is common is brought to the same level first."""
    clip_BC = noise(100) - height
    clip_BC[-round(share * BANDS) :] += height
    found = why(clip_BC, noise)
    assert found.sentence.startswith("new energy"), found.sentence
    assert found.change_db is not None
    assert found.change_db == pytest.approx(height, abs=3)


def test_a_fast_sweep_is_described_although_each_band_has_it_for_a_moment_only() -> None:
    steps = np.arange(8)
    # The rest of each band is quieter than usual, as beside a louder sound.
    clip_BC = noise(100)
    clip_BC[30:38, 40:48] -= 6
    clip_BC[30 + steps, 40 + steps] += 18
    sweep = why(clip_BC, noise)
    assert sweep.low_hz is not None
    assert 2_900 < sweep.low_hz < sweep.high_hz < 3_900
    assert 3.9 < sweep.start_s < sweep.end_s < 4.9


def test_a_recording_that_differs_nowhere_by_much_is_still_described() -> None:
    clip_BC = noise(100)
    clip_BC[50:60] += 1.5
    found = why(clip_BC, noise)
    assert "the rarest difference is a steady +1." in found.sentence
    clip_BC = -60 + np.random.default_rng(5).normal(0, 1.6, (BANDS, COLUMNS))
    assert "more fluctuation at" in why(clip_BC, noise).sentence


def test_silence_that_is_brought_to_a_higher_level_is_no_new_sound() -> None:
    """A loud tone lowers the rest of a normalised clip below the floor of 16 bits in the quietest bands."""

    def quiet_treble(seed: int) -> np.ndarray:
        level_BC = noise(seed)
        level_BC[60:] -= 24
        return level_BC

    clip_BC = np.maximum(quiet_treble(100) - 20, -90.0)
    clip_BC[20:22] = -30
    assert why(clip_BC, quiet_treble).sentence.startswith("new tone near 2.1 kHz throughout")


def test_clips_of_other_lengths_are_compared_too() -> None:
    envelope = Envelope.of([sketch(noise(seed)[:, :60]) for seed in range(20)], aligned=True)
    clip_BC = noise(100)
    clip_BC[40:43, 20:50] += 20
    found = explain(sketch_db(sketch(clip_BC)), envelope, centres_hz_B=HZ, seconds=5, nearest="n", anomalous=True)
    assert found.sentence.startswith("new tone near 4.2 kHz from 1.0 to 2.5 s")


def test_recorded_levels_are_compared_as_they_are() -> None:
    sketches = [sketch(noise(seed)) for seed in range(20)]
    clip_BC = sketch_db(sketch(noise(100) + 10))
    found = [
        explain(
            clip_BC, Envelope.of(sketches, aligned=aligned), centres_hz_B=HZ, seconds=10, nearest="n", anomalous=False
        )
        for aligned in (True, False)
    ]
    assert found[0].sentence == "sounds like the normal recording n"
    assert found[1].sentence.startswith("differs most at 0.0-8.0 kHz, throughout (+")
    assert abs(Envelope.of(sketches, aligned=True).common_shift(np.sort(clip_BC, axis=1)) - 10) <= STEP_DB


def test_a_louder_tone_is_never_energy_missing(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    detector = harken.Detector.fit(make_clips("normal", 20), workers=0)
    wave_S = hum(900)
    tone_S = np.sin(2 * np.pi * 2_900 * np.arange(len(wave_S)) / 16_000)
    for gain in (0.02, 0.1, 0.4):
        sf.write(tmp_path / "tone.wav", np.clip(wave_S + gain * tone_S, -1, 1), 16_000)
        assert (detector.score(tmp_path / "tone.wav").why or "").startswith("new tone near 2.9 kHz throughout")

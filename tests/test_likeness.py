"""Measures of generated clips against their definitions, and previews against the spectrogram that they are of."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from harken.encoders import create_encoder
from harken.encoders.base import Spectrogram
from harken.encoders.griffin_lim import can_be_heard, sound_of_spectrogram
from harken.encoders.registry import tiny_config
from harken.generation.likeness import COPIED, frechet_distance, likeness, two_sample_accuracy


@pytest.mark.parametrize("rows", [(50, 40), (5, 4), (2, 9)])
def test_frechet_distance_is_that_of_its_definition(rows: tuple[int, int]) -> None:
    """Also of fewer rows than dimensions, where covariances have no full rank."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows[0], 8)), 2 * rng.normal(size=(rows[1], 8)) + 1
    cx, cy = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(cx + 1e-9 * np.eye(8)) @ scipy.linalg.sqrtm(cy + 1e-9 * np.eye(8))
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cx + cy) - 2 * np.linalg.svd(root)[1].sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance(x[:1], y)


def test_the_two_sample_test_tells_sets_apart_by_their_neighbours() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)), rng.normal(size=(200, 4))
    assert two_sample_accuracy(x, y) == pytest.approx(0.5, abs=0.08)
    assert two_sample_accuracy(x, y + 20) == 1
    assert two_sample_accuracy(x, x) == 0, "copies: the nearest other row is always that of the other set"
    assert two_sample_accuracy(np.zeros((4, 2)), np.zeros((4, 2))) == pytest.approx(3 / 7), "ties by half"


def test_generated_clips_beside_real_ones_of_two_conditions() -> None:
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(40, 6)), rng.normal(size=(60, 6)) + 8
    real, conditions = np.concatenate([near, far]), ["rare"] * 40 + ["usual"] * 60
    good = likeness(rng.normal(size=(30, 6)), real, conditions, "rare")
    assert good.size == 20
    assert good.frechet is not None
    assert good.floor is not None
    assert good.frechet < 2.5 * good.floor
    assert good.test == pytest.approx(good.test_floor, abs=0.1)
    assert good.same == good.same_floor == 1
    assert good.copies is not None
    assert good.copies <= 3 * COPIED
    wrong = likeness(rng.normal(size=(30, 6)) + 8, real, conditions, "rare")
    assert wrong.same == 0
    assert wrong.test == 1
    assert wrong.frechet is not None
    assert wrong.floor is not None
    assert wrong.frechet > 20 * wrong.floor
    copied = likeness(near[:30] + 1e-6, real, conditions, "rare")
    assert copied.copies == 1
    assert copied.test is not None
    assert copied.test < 0.5
    few = likeness(near[:3], real[39:], conditions[39:], "rare")
    assert (few.size, few.frechet, few.test) == (0, None, None)
    assert few.same_floor is None, "one real clip has no other of its condition"


@pytest.mark.parametrize("name", ["beats", "eat", "fisher"])
def test_a_preview_has_the_spectrogram_that_it_is_of(name: str) -> None:
    rng = np.random.default_rng(0)
    rate = 16_000
    time_S = np.arange(2 * rate) / rate
    wave_S = (0.3 * np.sin(2 * np.pi * 440 * time_S) * (1 + 0.5 * np.sin(2 * np.pi * 3 * time_S))).astype(np.float32)
    wave_S += 0.01 * rng.normal(size=len(wave_S)).astype(np.float32)
    encoder = create_encoder(name, tiny_config(name))
    (spectrogram,) = encoder.spectrogram(wave_S[None])
    preview_S = sound_of_spectrogram(spectrogram, encoder.front_end())
    # It ends before the frames that fill no patch of the network.
    assert 30_000 < len(preview_S) <= len(wave_S)
    assert np.abs(preview_S).max() <= 0.7 + 1e-6
    gain = np.sqrt(np.mean(wave_S[:30_000] ** 2) / np.mean(preview_S[:30_000] ** 2))
    (again,) = encoder.spectrogram((gain * preview_S)[None])
    frames = slice(3, 150)
    loud = spectrogram.windows[0][frames] > np.quantile(spectrogram.windows[0][frames], 0.5)
    error = np.abs(again.windows[0][frames] - spectrogram.windows[0][frames])[loud]
    silence = np.abs(np.median(spectrogram.windows[0][frames]) - spectrogram.windows[0][frames])[loud]
    assert error.mean() < 0.5 * silence.mean()
    assert (sound_of_spectrogram(spectrogram, encoder.front_end()) == preview_S).all()


def test_an_unknown_front_end_has_no_preview() -> None:
    front_end = create_encoder("beats", tiny_config("beats")).front_end()
    other = type(front_end)("mine", 16_000, "digest")
    assert not can_be_heard(other)
    with pytest.raises(ValueError, match="no preview of spectrograms of mine"):
        sound_of_spectrogram(Spectrogram((np.zeros((9, 4), np.float32),), 2000), other)

"""Faults of the sensor and recorder are told from those of the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import harken
from conftest import hum
from harken.audio.health import STATISTICS, measure

RATE = 16_000


def sixteen_bits(sound_S: np.ndarray) -> np.ndarray:
    return (np.rint(np.clip(sound_S, -1, 1 - 2**-15) * 2**15) / 2**15).astype(np.float32)


def statistic(name: str, sound_S: np.ndarray, rate: int = RATE) -> float:
    return float(measure(sound_S.astype(np.float32)[None], rate)[name][0])


def test_a_sound_recording_has_none_of_the_traces() -> None:
    for fault in (False, True):
        sound_S = sixteen_bits(hum(1, fault=fault))
        for name in ("clipped_low", "clipped_high", "gap_s", "repeated", "clicks_hz", "wraps"):
            assert statistic(name, sound_S) == 0.0, name
        assert statistic("swapped_db", sound_S) > -10
        assert statistic("values", sound_S) > 500


def test_traces_of_the_recorder_are_measured() -> None:
    sound_S = sixteen_bits(hum(1))
    stuck_S = np.concatenate([sound_S[:8_000], np.tile(sound_S[8_000:9_000], 8)])
    assert statistic("repeated", stuck_S) == pytest.approx(7 / 16, abs=0.05)
    gap_S = sound_S.copy()
    gap_S[3_000:3_400] = 0
    gap_S[9_000:9_800] = gap_S[8_999]
    assert statistic("gap_s", gap_S) == pytest.approx(0.075, abs=1e-3)
    assert statistic("longest_constant_s", gap_S) == pytest.approx(0.05, abs=1e-3)
    clicks_S = sound_S.copy()
    clicks_S[500::1_000] = 0.9
    assert statistic("clicks_hz", clicks_S) == 16
    swapped_S = (sound_S * 2**15).astype(np.int16).byteswap() / np.float32(2**15)
    assert statistic("swapped_db", swapped_S) == pytest.approx(statistic("level_db", sound_S), abs=0.3)
    assert statistic("clipped_low", np.maximum(sound_S, 0)) > 0.4
    assert statistic("clipped_high", np.minimum(sound_S * 20, 0.5)) > 0.3
    assert statistic("values", np.rint(sound_S * 16) / 16) < 20
    wave_S = 0.1 * np.sign(sound_S)
    assert statistic("edge_high", wave_S) > 0.4


def test_a_sound_that_dies_away_is_no_gap_and_a_knock_no_click() -> None:
    sound_S = hum(1) * np.minimum(1, np.exp(-(np.arange(RATE) - 8_000) / 300)).astype(np.float32)
    assert statistic("gap_s", sixteen_bits(sound_S)) == 0.0
    assert statistic("longest_constant_s", sixteen_bits(sound_S)) > 0.3
    knocks_S = hum(2).copy()
    time_S = np.arange(800) / RATE
    for start in range(1_000, 15_000, 2_000):
        knocks_S[start : start + 800] += (np.exp(-time_S / 0.005) * np.sin(2 * np.pi * 3_100 * time_S)).astype("f4")
    assert statistic("clicks_hz", knocks_S) == 0.0


def test_levels_and_spectrum() -> None:
    time_S = np.arange(2 * RATE) / RATE
    mains_S = 0.1 * np.sin(2 * np.pi * 50 * time_S) + 0.05 * np.sin(2 * np.pi * 150 * time_S)
    noise_S = 1e-3 * np.random.default_rng(0).normal(size=2 * RATE)
    assert statistic("hum", mains_S + noise_S) > 0.99
    assert statistic("rest_db", mains_S + noise_S) < -50
    assert statistic("level_db", noise_S + 0.5) == pytest.approx(-60, abs=0.2)
    health = measure(np.stack([noise_S, mains_S]).astype(np.float32), RATE)
    assert health.values_CK.shape == (2, len(STATISTICS))
    # White noise: half an octave up is half an octave more bandwidth.
    np.testing.assert_allclose(np.diff(health.bands_db_CB[0, 8:]), 1.5, atol=0.7)
    assert np.argmax(health.bands_db_CB[1]) in (1, 2)


def test_offsets_leave_normal_recordings_normal(tmp_path: Path) -> None:
    """8-bit recorders of half a step, MEMS microphones and accelerometers with gravity can be learned from."""
    for index in range(12):
        sf.write(tmp_path / f"{index:02d}.wav", hum(index) * 0.02 + 0.3, RATE, subtype="FLOAT")
    detector = harken.Detector.fit(tmp_path, workers=0)
    assert detector.set_aside == []
    scores = []
    for offset in (0.0, 0.3, -0.9):
        verdict = detector.score(hum(99) * np.float32(0.02) + np.float32(offset), RATE)
        scores.append(verdict.score)
        assert any("offset" in warning for warning in verdict.warnings) == (offset != 0)
    assert max(scores) - min(scores) < 0.05 * abs(scores[0])


@pytest.mark.parametrize("rate", [100, 400, 1_000])
def test_slow_vibration_is_listened_to(rate: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    time_S = np.arange(20 * rate) / rate

    def vibration(fault: bool) -> np.ndarray:
        sound_S = np.sin(2 * np.pi * 0.11 * rate * time_S + rng.uniform(0, 6)) + 0.3 * rng.normal(size=len(time_S))
        return (0.1 * sound_S + 0.1 * fault * np.sin(2 * np.pi * 0.31 * rate * time_S)).astype(np.float32)

    for index in range(12):
        sf.write(tmp_path / f"{index:02d}.wav", vibration(fault=False), rate, subtype="FLOAT")
    detector = harken.Detector.fit(tmp_path, workers=0, false_alarms="10%")
    verdict = detector.score(vibration(fault=True), rate)
    assert verdict.is_anomaly
    assert verdict.explanation.low_hz < 0.31 * rate < verdict.explanation.high_hz
    assert not detector.score(vibration(fault=False), rate).is_anomaly

"""Faults of the sensor and recorder are told from those of the machine."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import harken
from conftest import hum
from harken.audio.health import STATISTICS, measure
from harken.monitor.channel_health import NormalHealth
from harken.monitor.sensor import not_judged
from harken.plant.room import NEAR_DRR_DB, NEAR_M, convolve, response

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
    clicks_S = 0.1 * sound_S
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


@pytest.mark.parametrize("count", [1, 5, 50])
def test_a_room_answers_sparks_and_not_electricity(count: int) -> None:
    rng = np.random.default_rng(count)
    places = rng.integers(4_100, 2 * RATE, size=count)
    dry_S = np.zeros(2 * RATE + 100)
    dry_S[places] = 0.5
    response_R = response(NEAR_M, NEAR_DRR_DB, RATE, rng)
    sparks_S = convolve(dry_S, response_R[None] / response_R.max())[0]
    background_S = 0.1 * hum(1, seconds=2.0)[: len(sparks_S)]
    assert statistic("clicks_hz", sixteen_bits(background_S + sparks_S)) == 0.0
    assert statistic("clicks_hz", sixteen_bits(background_S + dry_S[-len(background_S) :])) > 0.0


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
    assert len(detector.set_aside) == 0
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


def quiet(seed: int, **settings: bool) -> np.ndarray:
    """`hum` with headroom, and a speed that is not that of the mains."""
    return 0.2 * hum(seed, speed=73, **settings)


@pytest.fixture(scope="module")
def normal() -> NormalHealth:
    healths = [measure(sixteen_bits(quiet(seed))[None], RATE).values_CK for seed in range(30)]
    return NormalHealth.of(np.stack(healths))


def low_passed(sound_S: np.ndarray, hz: float) -> np.ndarray:
    spectrum_F = np.fft.rfft(sound_S)
    return np.fft.irfft(spectrum_F * (np.fft.rfftfreq(len(sound_S), 1 / RATE) < hz), len(sound_S))


def with_values(sound_S: np.ndarray, where: slice | list[int], value: float) -> np.ndarray:
    changed_S = sound_S.copy()
    changed_S[where] = value
    return changed_S


NOISE_S = np.random.default_rng(5).normal(size=RATE)
MAINS_S = np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE)
SPOILED = {
    "machine is off or not heard.*what is left is noise": ("off", lambda x: 3e-4 * NOISE_S),
    "machine is off.*left is hum of the mains": ("off", lambda x: 1e-3 * MAINS_S + 3e-5 * NOISE_S),
    "only hum of the mains": ("off", lambda x: 0.1 * MAINS_S + 1e-3 * NOISE_S),
    r"\d\d dB below any of 30 normal recordings, with their spectrum": ("level", lambda x: 0.01 * x),
    "bytes of its samples are swapped": ("sensor", lambda x: (x * 2**15).astype("i2").byteswap() / 2**15),
    "overflow": ("sensor", lambda x: (30 * x + 1) % 2 - 1),
    "clipped throughout": ("sensor", lambda x: np.clip(100 * x, -1, 1)),
    "one side of the wave is cut off: ": ("sensor", lambda x: np.maximum(x, 0)),
    "cut off or folded": ("sensor", np.abs),
    "gaps: 0.10 of 1 s": ("sensor", lambda x: with_values(x, slice(4_000, 5_600), 0.0)),
    "exact copies": ("sensor", lambda x: np.concatenate([x[:12_000], x[8_000:12_000]])),
    "too few bits": ("sensor", lambda x: np.rint(x * 80) / 80),
    "3 clicks of a sample": ("sensor", lambda x: with_values(x, [3_000, 7_777, 12_001], 0.95)),
    "highest 65% of the frequencies are missing": ("sensor", lambda x: low_passed(x, 2_600) + 2e-5 * NOISE_S),
}


@pytest.mark.parametrize("reason", SPOILED)
def test_faults_of_the_sensor_are_reported_as_what_they_are(reason: str, normal: NormalHealth) -> None:
    kind, spoil = SPOILED[reason]
    for seed in (100, 101):
        health = measure(sixteen_bits(spoil(quiet(seed)))[None], RATE)
        found = not_judged(health, normal, 1.0)
        assert found is not None
        assert found.kind == kind
        assert re.search(reason, found.reason), found.reason


def faults() -> dict[str, np.ndarray]:
    time_S = np.arange(RATE) / RATE
    squeal_S = quiet(200) + np.where(abs(time_S - 0.5) < 0.1, 3 * np.sin(2 * np.pi * 3_000 * time_S), 0)
    return {
        "ringing": quiet(201, fault=True),
        "louder, as white noise": quiet(202) + 0.2 * NOISE_S * np.sin(2 * np.pi * 8 * time_S) ** 2,
        "a squeal that clips": np.clip(squeal_S, -1, 1),
        "stops in the middle": quiet(203) * np.where(time_S < 0.5, 1, np.exp(-(time_S - 0.5) / 0.02)) + 3e-5 * NOISE_S,
        "hiss beside it": quiet(204) + 0.04 * NOISE_S,
        "hum beside it": quiet(205) + 0.06 * MAINS_S,
        "12 dB quieter": 0.25 * quiet(206),
        "knocks": quiet(207) + 0.3 * np.sin(2 * np.pi * 2_500 * time_S) * np.exp(-(time_S % 0.1) / 0.004),
    }


@pytest.mark.parametrize("fault", faults())
def test_faults_of_the_machine_are_judged(fault: str, normal: NormalHealth) -> None:
    assert not_judged(measure(sixteen_bits(faults()[fault])[None], RATE), normal, 1.0) is None


def test_channels_that_are_dead_or_exchanged() -> None:
    def recording(seed: int) -> np.ndarray:
        other_S = 0.3 * low_passed(hum(seed + 1_000), 2_000) + 0.01 * np.random.default_rng(seed).normal(size=RATE)
        return sixteen_bits(np.stack([hum(seed), other_S]))

    normal = NormalHealth.of(np.stack([measure(recording(seed), RATE).values_CK for seed in range(20)]))
    right_CS = recording(50)
    dead_CS = np.stack([right_CS[0], sixteen_bits(1e-4 * NOISE_S)])
    cases = {
        None: right_CS,
        "channel 2: its microphone is dead": dead_CS,
        "the channels are exchanged": right_CS[::-1],
        "both channels hold the same sound": right_CS[[0, 0]],
    }
    for reason, samples_CS in cases.items():
        found = not_judged(measure(np.ascontiguousarray(samples_CS), RATE), normal, 1.0)
        assert (found is None) if reason is None else (found is not None and found.reason.startswith(reason)), reason


def test_unfit_recordings_are_not_learned_from_but_quiet_states_are(tmp_path: Path) -> None:
    for index in range(30):
        sound_S = sixteen_bits(hum(index))
        sound_S = {3: with_values(sound_S, [500, 8_000], 0.9), 9: sixteen_bits(3e-4 * NOISE_S)}.get(index, sound_S)
        # A third of the time the machine idles.
        sf.write(tmp_path / f"{index:02d}.wav", sound_S * (0.05 if index % 3 == 1 else 1), RATE)
    detector = harken.Detector.fit(tmp_path, workers=0)
    reasons = {excluded.path.name: excluded.reason for excluded in detector.set_aside}
    assert set(reasons) == {"03.wav", "09.wav"}
    assert "clicks" in reasons["03.wav"]
    assert "machine is off" in reasons["09.wav"]


def test_a_defect_of_most_recordings_is_how_the_machine_is_recorded(tmp_path: Path) -> None:
    for index in range(12):
        sound_S = np.clip(hum(index) * 3, -0.5, 0.5) if index else hum(0)
        sf.write(tmp_path / f"{index:02d}.wav", sound_S, RATE)
    detector = harken.Detector.fit(tmp_path, workers=0)
    assert not any("clipped" in excluded.reason for excluded in detector.set_aside)
    assert any("'clipped': it counts as usual" in note for note in detector.notes)

"""What is wrong with recordings."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from conftest import hum
from harken.audio.moments import Moments
from harken.audio.quality import SAME_TEXTURE, inspect, level_groups, texture_difference
from harken.embeddings.sketch import STEP_DB, make_sketch
from harken.encoders.spectral import Spectral


def spoiled(kind: str) -> np.ndarray:
    sound = hum(5)
    if kind == "not finite":
        sound[100] = np.nan
    elif kind == "silent":
        sound = np.full_like(sound, 0.01)
    elif kind == "clipped":
        sound = np.clip(sound * 20, -1, 1)
    elif kind == "constant offset":
        sound = sound + 1.0
    elif kind == "dropouts":
        sound[4_000:5_000] = 0
    elif kind == "too short":
        sound = sound[:500]
    return sound.astype(np.float32)[None]


@pytest.mark.parametrize(
    ("kind", "unusable"),
    [("not finite", True), ("silent", True), ("too short", True), ("clipped", False), ("constant offset", False),
     ("dropouts", False)],
)  # fmt: skip
def test_each_defect_is_found_and_nothing_else(kind: str, unusable: bool) -> None:
    findings = inspect(Moments(spoiled(kind)), 16_000)
    assert [finding.kind for finding in findings] == [kind]
    assert findings[0].unusable is unusable
    assert findings[0].next_step


def test_good_recordings_have_no_findings() -> None:
    for seed in range(5):
        assert inspect(Moments(np.stack([hum(seed), hum(seed + 100)])), 16_000) == []


def test_a_dead_second_channel_is_named() -> None:
    (finding,) = inspect(Moments(np.stack([hum(1), np.zeros_like(hum(1))])), 16_000)
    assert finding.kind == "silent"
    assert "channel 1" in finding.detail


@pytest.mark.parametrize("change", ["gain", "noise", "bits", "vorbis"])
def test_reencoded_recordings_have_the_same_texture(change: str, tmp_path: Path) -> None:
    sound = hum(0, seconds=2)
    changed = {
        "gain": 0.3 * sound,
        "noise": sound + 0.02 * sound.std() * np.random.default_rng(0).normal(size=len(sound)).astype(np.float32),
        "bits": np.round(sound * 127) / 127,
        "vorbis": sound,
    }[change]
    if change == "vorbis":
        sf.write(tmp_path / "a.ogg", sound, 16_000)
        changed = sf.read(tmp_path / "a.ogg", dtype="float32")[0]
    assert difference(sound, changed) < SAME_TEXTURE


@pytest.mark.parametrize("seconds", [1.0, 3.0, 20.0])
def test_other_recordings_of_the_same_machine_have_another(seconds: float) -> None:
    noise = [np.random.default_rng(seed).normal(size=int(16_000 * seconds)).astype(np.float32) for seed in range(2)]
    assert 0.8 < difference(*noise) < 1.3
    assert difference(hum(0, seconds=seconds), hum(1, seconds=seconds)) > 1.2 * SAME_TEXTURE


def difference(first: np.ndarray, second: np.ndarray) -> float:
    bands = Spectral(16_000)
    sketches = [make_sketch(bands.log_mel(samples)) for samples in (first, second)]
    return texture_difference(sketches[0], sketches[1], STEP_DB, len(first) / 16_000, 8_000 / 128)


def test_level_groups() -> None:
    assert level_groups([-20, -32, -21, -33, -19]) == [[3, 1], [2, 0, 4]]
    assert len(level_groups([-20, -22, -25, -29])) == 1


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_a_recording_is_forgotten_at_once(offset: float) -> None:
    """Thousands of recordings would else stay until garbage is looked for."""
    gc.disable()
    try:
        moments = Moments(np.stack([hum(1)]) + np.float32(offset))
        assert abs(float(moments.without_offset.mean_C[0])) < 1e-3
        inspect(moments, 16_000)
        gone = weakref.ref(moments)
        del moments
        assert gone() is None
    finally:
        gc.enable()

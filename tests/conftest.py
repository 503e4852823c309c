"""Fixtures: synthetic recordings for everyone, real ones where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import settings

# Machines that are shared stall for seconds: a deadline would test them, not us.
settings.register_profile("harken", deadline=None)
settings.load_profile("harken")

SHARED = Path(os.environ.get("HARKEN_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real recordings, reference numbers and small real weights; tests that need it skip without it."""
    if not (SHARED / "corpus" / "manifest.csv").is_file():
        pytest.skip(f"real data not found at {SHARED} (set HARKEN_SHARED)")
    return SHARED


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes the user's cache."""
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("HARKEN_WEIGHTS", raising=False)


def hum(seed: int, seconds: float = 1.0, rate: int = 16_000, fault: bool = False, speed: float = 50) -> np.ndarray:
    """(samples,) a machine: harmonics of a wandering shaft speed in noise; a fault adds a 3 kHz ringing."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    speed *= 1 + 0.01 * rng.normal()
    sound = sum(np.sin(2 * np.pi * speed * k * time + rng.uniform(0, 6)) / k for k in range(1, 8))
    sound = 0.1 * sound + 0.03 * rng.normal(size=len(time))
    if fault:
        start = rng.integers(0, len(time) // 2)
        length = len(time) // 3
        sound[start : start + length] += 0.08 * np.sin(2 * np.pi * 3000 * time[:length])
    return sound.astype(np.float32) * np.float32(10 ** (rng.uniform(-3, 3) / 20))


@pytest.fixture
def make_clips(tmp_path: Path) -> Callable[..., Path]:
    """make(name, count, first_seed=0, **hum) -> a folder of that many WAV files."""

    def make(name: str, count: int, first_seed: int = 0, rate: int = 16_000, **options: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for index in range(count):
            sound = hum(first_seed + index, rate=rate, **options)  # type: ignore[arg-type]
            sf.write(folder / f"clip_{index:03d}.wav", sound, rate, subtype="PCM_16")
        return folder

    return make

"""Fixtures: synthetic recordings for everyone, real ones where they are at hand; what is made once for all tests."""

from __future__ import annotations

import os

# Before NumPy and torch read it: one thread in this process, as in those that Harken starts. On several, sums of
# small matrices wait for each other, and differ in their last bits from one machine to the next.
os.environ["THREADS_BEFORE"] = os.environ.get("THREADS_BEFORE", os.environ.get("OMP_NUM_THREADS", ""))
os.environ["OMP_NUM_THREADS"] = "1"

import gc
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from filelock import FileLock
from hypothesis import settings

# Whatever the shell says: otherwise each of hundreds of processes compiles what it imports, and each worker all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Machines that are shared stall for seconds: a deadline would test them, not us.
settings.register_profile("harken", deadline=None)
settings.load_profile("harken")

#: files that take longest, longest first: no worker is left with one of them when the others have ended
LONGEST = (
    "ray", "cli", "page_browser", "finetune", "recipes", "monitor", "models", "training", "pipeline", "ensemble",
    "detectors", "custom", "tutorial", "plan", "extend", "package", "sweep", "derived", "reading", "set_up",
    "edge_models", "detector", "onnx", "learning", "thuee", "spectrogram_clips", "plant",
)  # fmt: skip
#: of a plant on which a run takes seconds
SIZES = {"train_source": 10, "train_target": 3, "test_per_condition": 3, "supplemental": 1, "seconds": 1.0}
SHARED = Path(os.environ.get("HARKEN_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than the cores that this process may use (psutil counts those of the whole machine): tests of monitors,
    browsers, clusters and downloads wait for much of their time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """One worker does a whole file: what its tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first."""
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


def pytest_collectstart() -> None:
    """What tests import stays: until all are collected, nobody looks through it for garbage."""
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """The garbage collector passes over what is imported by now: looking through it took a sixth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def needs(package: str) -> pytest.MarkDecorator:
    """Skips tests where an optional package is missing, and imports none: some take seconds, in every worker."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


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


@pytest.fixture(autouse=True, scope="session")
def _threads_of_children() -> None:
    """Programs that tests start find the variable as it was: that they keep to one thread is up to Harken."""
    os.environ["OMP_NUM_THREADS"] = os.environ["THREADS_BEFORE"]
    if not os.environ["OMP_NUM_THREADS"]:
        del os.environ["OMP_NUM_THREADS"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """No test inherits the number of threads that another, or the machine, has set."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """once(name, make): a folder that `make` fills, once for all processes of these tests. Nobody writes to it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, made = root / f"once_{name}", root / f"once_{name}.made"
        with FileLock(root / f"once_{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def plant(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Two small machines, 26 clips of 1 s each; the attributes of valve are hidden. Copy it to change it."""

    def make(folder: Path) -> None:
        from harken.plant.simulate import simulate

        simulate(folder, machines=["fan", "valve"], hide_attributes=["valve"], **SIZES)  # type: ignore[arg-type]

    return once("plant", make)


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

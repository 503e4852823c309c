"""A machine that hums, its model, and sound from any source heard with it; shared by tests of the monitor's sources."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

import harken
from conftest import hum
from harken.service.feed import Feed
from harken.service.judging import WindowJudge
from harken.service.listener import MachineListener
from harken.service.records import HeardWindow
from harken.service.sources.base import SoundSource
from harken.service.tap import Tap

RATE = 16_000


def detector_in(folder: Path) -> harken.Detector:
    """Of a machine that hums; its recordings last a second."""
    for seed in range(12):
        sf.write(folder / f"{seed}.wav", hum(seed, seconds=1.0), RATE)
    return harken.Detector.fit(folder, workers=0)


def humming(seconds: float, first: int = 50) -> np.ndarray:
    """(samples,) of the machine as 16-bit samples hold it."""
    pieces = [hum(first + second, seconds=1.0) for second in range(int(np.ceil(seconds)))]
    return np.rint(np.concatenate(pieces)[: int(seconds * RATE)] * 2**15) / 2**15


def scores_of_files(detector: harken.Detector, sound: np.ndarray, folder: Path) -> list[float]:
    """Of each complete second of the sound, as a file."""
    for second in range(len(sound) // RATE):
        write(folder / f"{second:03d}.wav", sound[second * RATE : (second + 1) * RATE])
    verdicts = detector.score_many(sorted(folder.iterdir()), workers=0)
    return [verdict.score for verdict in verdicts if verdict.score is not None]


def write(path: Path, sound: np.ndarray) -> None:
    """A file of 16-bit samples."""
    sf.write(path, sound, RATE, subtype="PCM_16")


def heard_of(
    source: SoundSource,
    detector: harken.Detector,
    count: int | None = None,
    *,
    resume: Mapping[str, Mapping[str, Any]] | None = None,
    channels: list[int] | None = None,
    seconds: float = 30,
) -> list[HeardWindow]:
    """All windows of a source, or the first `count`, within some seconds."""
    tap = Tap("pump", detector.segment_s, channels=channels, resume=resume)
    listener = MachineListener(Feed(source, [tap]), tap, WindowJudge("pump", detector, "digest", resume=resume))
    listener.feed.start()
    windows: list[HeardWindow] = []
    until = time.monotonic() + seconds
    while not listener.finished and (count is None or len(windows) < count) and time.monotonic() < until:
        for heard in listener.hear(0.2):
            windows.append(heard)
            if len(windows) == count:
                break
    assert listener.feed.stop()
    return windows


def stored(windows: list[HeardWindow]) -> dict[str, Mapping[str, Any]]:
    """What a store holds to take the source up behind these windows."""
    state: dict[str, Mapping[str, Any]] = {}
    for heard in windows:
        state.update(heard.window.resume)
    return {key: value for key, value in state.items() if value}

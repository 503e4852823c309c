"""A small machine that hums in one of several states, or faulty, as features of recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harken.data.clips import Clip
from harken.detection import create_detector
from harken.embeddings.embedder import ClipFeatures, Embedder, make_spec
from harken.monitor.basis import Heard
from harken.monitor.feedback.rebaselining import chronology_of
from harken.monitor.fitted import Fitted
from harken.monitor.learn import learn

RATE = 8_000
SPEC = make_spec("spectral", sample_rate=RATE, channels=1, monitoring=True)
EMBEDDER = Embedder(SPEC)


def sound(seed: int, *, hum_hz: float = 220.0, whine_hz: float = 0.0, knock: bool = False) -> np.ndarray:
    """(S,) one second: a hum with overtones in noise; with a whine, or a knock, that is no part of it."""
    rng = np.random.default_rng(seed)
    seconds_S = np.arange(RATE) / RATE
    speed = hum_hz * (1 + 0.01 * rng.normal())
    wave_S = sum(np.sin(2 * np.pi * speed * k * seconds_S + rng.uniform(0, 6)) / k for k in (1, 2, 3))
    wave_S = wave_S + 0.5 * rng.normal(size=RATE)
    if whine_hz:
        wave_S = wave_S + 1.5 * np.sin(2 * np.pi * whine_hz * (1 + 0.003 * rng.normal()) * seconds_S)
    if knock:
        click_S = np.exp(-np.arange(400) / 80) * np.sin(2 * np.pi * 0.21 * np.arange(400))
        wave_S[3000:3400] += 12 * (1 + 0.05 * rng.normal()) * click_S
    return np.asarray(0.05 * wave_S, dtype=np.float32)


def features(seeds: range, **kind: float | bool) -> list[ClipFeatures]:
    """Of recordings of one kind, see `sound`."""
    return [EMBEDDER.analyse(sound(seed, **kind), sample_rate=RATE) for seed in seeds]  # type: ignore[arg-type]


def heard(name: str, seeds: range, start_s: float = 1e6, **kind: float | bool) -> list[Heard]:
    """The same, recorded every ten seconds from `start_s` on."""
    return [
        Heard(f"{name} {seed}.wav", clip, start_s + 10.0 * place)
        for place, (seed, clip) in enumerate(zip(seeds, features(seeds, **kind), strict=True))
    ]


def fitted(clips: list[Heard], false_alarms: str = "1%") -> Fitted:
    """A model of recordings, as `harken fit` makes it."""
    detector = create_detector("local_density", None)
    rows = [Clip(clip_id=clip.name, path=Path(clip.name)) for clip in clips]
    learned = learn(detector, rows, [clip.features for clip in clips], chronology_of(clips), None)
    return Fitted(
        SPEC,
        None,
        detector,
        learned.calibration,
        learned.training,
        false_alarms,
        block=learned.block,
        events=learned.events,
        tones=learned.tones,
        basis=learned.basis,
        notes=learned.notes,
    )


NORMAL = heard("normal", range(60), 0.0)
NEW_STATE = heard("new", range(100, 112), hum_hz=300.0)
FAULT = heard("whine", range(200, 208), whine_hz=1900.0)
KNOCKS = heard("knock", range(250, 256), knock=True)

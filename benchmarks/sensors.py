"""Faults of sensor and recorder, a machine that is off, and real faults: which verdicts a fitted model gives.

    python benchmarks/sensors.py [--clips 10] [--false-alarms 1%]

Normal test clips of two machines are spoiled in 26 ways. No kind may be a machine alarm. Beside them, the faults of
machines and of the simulated plant: none may be taken for a fault of the sensor.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfilt

import harken
from harken.plant.simulate import simulate
from shared_folder import shared_folder

Float64 = NDArray[np.float64]
#: sound, sampling rate, generator -> spoiled sound
Spoil = Callable[[Float64, int, np.random.Generator], Float64]

FULL_SCALE = 2**15
#: machines of the simulated plant
PLANT = ("fan", "pump", "slider", "valve")


def gain(decibels: float) -> Spoil:
    return lambda sound, rate, rng: sound * 10 ** (decibels / 20)


def noise(decibels: float) -> Spoil:
    return lambda sound, rate, rng: rng.normal(size=len(sound)) * 10 ** (decibels / 20)


def noise_at_its_level(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
    return rng.normal(size=len(sound)) * sound.std()


def hum(decibels: float) -> Spoil:
    def spoil(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
        time = np.arange(len(sound)) / rate
        wave = sum(np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / k for k in range(1, 12, 2))
        return wave / np.std(wave) * 10 ** (decibels / 20) + noise(-80)(sound, rate, rng)

    return spoil


def gaps(count: int, seconds: float, held: bool = False) -> Spoil:
    def spoil(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
        sound, length = sound.copy(), int(seconds * rate)
        for start in rng.integers(1, len(sound) - length, size=count):
            sound[start : start + length] = sound[start - 1] if held else 0.0
        return sound

    return spoil


def stuck(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
    start = int(rng.uniform(0.2, 0.7) * len(sound))
    return np.concatenate([sound[:start], np.resize(sound[start - 1024 : start], len(sound) - start)])


def doubled_blocks(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
    blocks = sound[: len(sound) // 1024 * 1024].reshape(-1, 1024).copy()
    again = rng.integers(1, len(blocks), size=len(blocks) // 10)
    blocks[again] = blocks[again - 1]
    return blocks.ravel()


def clicks(count: int) -> Spoil:
    def spoil(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
        sound = sound.copy()
        sound[rng.integers(20, len(sound) - 20, size=count)] = rng.choice([-0.95, 0.95], size=count)
        return sound

    return spoil


def swapped_bytes(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
    return integers(sound).byteswap() / FULL_SCALE


def unsigned_as_signed(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
    return (integers(sound) ^ np.int16(-FULL_SCALE)) / FULL_SCALE


def overflow(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
    louder = sound / np.abs(sound).max() * 2
    return (louder + 1) % 2 - 1


def low_pass(hz: float) -> Spoil:
    return lambda sound, rate, rng: sosfilt(butter(8, hz, fs=rate, output="sos"), sound)


def half_the_rate(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
    return resample_poly(resample_poly(sound, 1, 2), 2, 1)[: len(sound)]


def clipped(times: float) -> Spoil:
    return lambda sound, rate, rng: np.clip(sound / sound.std() * times, -1, 1)


def one_side_clipped(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
    return np.minimum(sound, 0.3 * sound.std())


def bits(count: int) -> Spoil:
    def spoil(sound: Float64, rate: int, rng: np.random.Generator) -> Float64:
        step = np.abs(sound).max() / 2 ** (count - 1)
        return np.rint(sound / step) * step

    return spoil


def integers(sound: Float64) -> NDArray[np.int16]:
    return np.clip(np.rint(sound * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


KINDS: dict[str, Spoil] = {
    "noise floor, -75 dBFS": noise(-75),
    "noise at the machine's level": noise_at_its_level,
    "hum, -60 dBFS": hum(-60),
    "hum, -35 dBFS": hum(-35),
    "30 dB less gain": gain(-30),
    "10 gaps of 50 ms": gaps(10, 0.05),
    "a gap of 2 s": gaps(1, 2.0),
    "10 gaps, last value held": gaps(10, 0.05, held=True),
    "stuck block of 1024": stuck,
    "one block of ten twice": doubled_blocks,
    "20 clicks": clicks(20),
    "1000 clicks": clicks(1000),
    "swapped bytes": swapped_bytes,
    "unsigned as signed": unsigned_as_signed,
    "overflow": overflow,
    "low-pass, 1 kHz": low_pass(1_000),
    "low-pass, 3 kHz": low_pass(3_000),
    "half the sampling rate": half_the_rate,
    "clipped, a tenth": clipped(0.6),
    "clipped, nearly all": clipped(20),
    "constant": lambda sound, rate, rng: np.full_like(sound, 0.2),
    "half-wave": lambda sound, rate, rng: np.maximum(sound, 0),
    "full-wave": lambda sound, rate, rng: np.abs(sound),
    "one side clipped": one_side_clipped,
    "4 bits": bits(4),
    "3 bits": bits(3),
}
#: what must be judged, and as the recording without it
HARMLESS: dict[str, Spoil] = {
    "unchanged": gain(0),
    "offset 0.3": lambda sound, rate, rng: sound + 0.3,
    "8 dB less gain": gain(-8),
    "8 dB more gain": gain(8),
}


def spoiled(folder: Path, clips: Sequence[Path], spoil: Spoil, count: int) -> list[Path]:
    """Write `count` spoiled 16-bit copies of `clips`."""
    folder.mkdir(parents=True)
    files = []
    for number in range(count):
        sound, rate = sf.read(clips[number % len(clips)])
        changed = spoil(sound, rate, np.random.default_rng([number, 7]))
        files.append(folder / f"{number}.wav")
        sf.write(files[-1], integers(changed), rate)
    return files


def kind_of(verdict: object) -> str:
    """`normal`, `suspect`, `alarm` or `not judged`, of this and of earlier versions."""
    if hasattr(verdict, "kind"):
        return str(verdict.kind)
    if getattr(verdict, "error", None) is not None:
        return "not judged"
    return "alarm" if getattr(verdict, "is_anomaly") else "normal"  # noqa: B009


def counts(detector: harken.Detector, files: Iterable[Path]) -> tuple[collections.Counter[str], str]:
    """Number of each verdict, and the first reason for which a clip was not judged."""
    verdicts = list(detector.score_many(list(files)))
    reasons = [str(v.error or getattr(v, "not_judged", "")) for v in verdicts if kind_of(v) == "not judged"]
    return collections.Counter(kind_of(verdict) for verdict in verdicts), reasons[0] if reasons else ""


def row(name: str, number: collections.Counter[str], reason: str = "") -> None:
    cells = " ".join(f"{number[kind]:10d}" for kind in ("normal", "suspect", "alarm", "not judged"))
    print(f"{name:32s} {cells}  {reason[:110]}", flush=True)


def machines(corpus: Path) -> dict[str, tuple[list[Path], list[Path], list[Path]]]:
    """(learned from, other normal clips, faults) of real machines."""
    slider, fan = corpus / "dcase2020" / "slider", corpus / "mimii_fan_0dB" / "fan"
    motors = sorted((corpus / "bldc_audio" / "BLDC" / "all").iterdir())
    healthy = [path for path in motors if "normal" in path.name]
    return {
        "slider id_00": (
            sorted((slider / "train").glob("*id_00*")),
            sorted((slider / "test").glob("normal_id_00*")),
            sorted((slider / "test").glob("anomaly_id_00*")),
        ),
        "MIMII fan id_00": (
            sorted((fan / "train").iterdir()),
            sorted((fan / "test").glob("normal*")),
            sorted((fan / "test").glob("anomaly*")),
        ),
        "BLDC motors": (healthy, [], [path for path in motors if "anomaly" in path.name]),
    }


def bearing(corpus: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """First third and last tenth of the life of the FEMTO bearings; no other normal clips."""
    learned: list[Path] = []
    faults: list[Path] = []
    for stream in sorted(corpus.glob("femto/*/stream")):
        files = sorted(stream.iterdir())
        learned += files[: len(files) // 3]
        faults += files[-len(files) // 10 :]
    return learned, [], faults


def judge(name: str, learned: list[Path], false_alarms: str) -> harken.Detector:
    detector = harken.Detector.fit(learned, false_alarms=false_alarms)
    print(f"\n{name}: learned from {len(detector.training.names)}, set aside {len(detector.set_aside)}")
    print(f"{'':32s} {'normal':>10s} {'suspect':>10s} {'alarm':>10s} {'not judged':>10s}")
    return detector


def plant(folder: Path, false_alarms: str) -> None:
    """Simulated machines; off, only the factory is heard."""
    simulate(
        folder, machines=PLANT, train_source=40, train_target=1, test_per_condition=5, supplemental=20, seconds=4.0
    )
    for machine in sorted(folder.iterdir()):
        tests = sorted((machine / "test").glob("*.wav")) if machine.is_dir() else []
        if not tests:
            continue
        detector = judge(f"plant: {machine.name}", sorted((machine / "train").glob("*.wav")), false_alarms)
        row("other normal clips", *counts(detector, [path for path in tests if "normal" in path.name]))
        row("faults", *counts(detector, [path for path in tests if "anomaly" in path.name]))
        noises = sorted((machine / "supplemental").glob("*noise*.wav"))
        if noises:
            row("factory without the machine", *counts(detector, noises[len(noises) // 2 :]))
            train = sorted((machine / "train").glob("*.wav"))
            known = harken.Detector.fit(train, false_alarms=false_alarms, off=noises[: len(noises) // 2])
            row("the same, with --off", *counts(known, noises[len(noises) // 2 :]))
            row("faults, with --off", *counts(known, [path for path in tests if "anomaly" in path.name]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--false-alarms", default="1%")
    arguments = parser.parse_args()
    corpus = shared_folder() / "corpus"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, (learned, normal, faults) in {**machines(corpus), "FEMTO bearings": bearing(corpus)}.items():
            detector = judge(name, learned, arguments.false_alarms)
            row("other normal clips", *counts(detector, normal))
            row("faults", *counts(detector, faults))
            if normal:
                for kind, spoil in {**HARMLESS, **KINDS}.items():
                    files = spoiled(folder / name / kind, normal, spoil, arguments.clips)
                    row(kind, *counts(detector, files))
        plant(folder / "plant", arguments.false_alarms)


if __name__ == "__main__":
    main()

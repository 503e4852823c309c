"""Short events and tones in real recordings: are they alarms, and what does the sentence say of them?

    python benchmarks/sounds.py [--beside PYTHON] [--sentences]

Events are added to normal recordings that were not learned from (slider, fan), or are left out in turn (motors), at a
level in dB relative to the recording's. PYTHON: an interpreter with audio-anomaly installed (not a dependency of
Harken), which is given the same sounds and all normal recordings as its reference.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import harken
from harken.audio.decode import decode
from shared_folder import shared_folder

Wave = NDArray[np.float64]
RATE = 16_000
LEVELS_DB = (0, 10)
TONES_DB = (-10, -4, 0, 6, 12)

BESIDE_PROGRAM = """
import sys
import numpy, soundfile
from audio_anomaly import detect
reference = numpy.concatenate([soundfile.read(name)[0] for name in open(sys.argv[1]).read().split("\\n")])
for name in sys.stdin:
    report = detect(soundfile.read(name.strip())[0], sample_rate=16000, reference=(reference, 16000))
    print(report.max_score, len(report.anomalies), flush=True)
"""


def knocks(count: int) -> Callable[[Wave, float, np.random.Generator], Wave]:
    """Knocks of 50 ms, dying away with 12 ms, spread over the recording."""

    def added(wave_S: Wave, amplitude: float, rng: np.random.Generator) -> Wave:
        event_S, length = np.zeros_like(wave_S), round(0.05 * RATE)
        for number in range(count):
            start = int((number + 0.7) / (count + 1) * len(wave_S))
            decay = np.exp(-np.arange(length) / (0.012 * RATE))
            event_S[start : start + length] += amplitude * rng.standard_normal(length) * decay
        return event_S

    return added


def bang(wave_S: Wave, amplitude: float, rng: np.random.Generator) -> Wave:
    """A low one of 0.4 s."""
    event_S, length = np.zeros_like(wave_S), round(0.4 * RATE)
    noise_S = np.convolve(rng.standard_normal(length), np.ones(6) / 6, "same")
    start = int(0.6 * len(wave_S))
    event_S[start : start + length] = 2 * amplitude * noise_S * np.exp(-np.arange(length) / (0.08 * RATE))
    return event_S


def squeal(wave_S: Wave, amplitude: float, rng: np.random.Generator) -> Wave:
    """3 kHz for a second, with some vibrato."""
    event_S, time_S = np.zeros_like(wave_S), np.arange(RATE) / RATE
    phase_S = 2 * np.pi * np.cumsum(3000 + 40 * np.sin(2 * np.pi * 5 * time_S)) / RATE
    event_S[4 * RATE : 5 * RATE] = amplitude * np.sqrt(2) * np.sin(phase_S)
    return event_S


def rub(wave_S: Wave, amplitude: float, rng: np.random.Generator) -> Wave:
    """Hiss that swells eight times a second, for 2.5 s."""
    event_S, length = np.zeros_like(wave_S), round(2.5 * RATE)
    swell_S = 0.5 + 0.5 * np.sin(2 * np.pi * 8 * np.arange(length) / RATE)
    event_S[3 * RATE : 3 * RATE + length] = 0.7 * amplitude * np.diff(rng.standard_normal(length + 1)) * swell_S
    return event_S


def tone(wave_S: Wave, amplitude: float, rng: np.random.Generator) -> Wave:
    """2.9 kHz throughout."""
    return amplitude * np.sqrt(2) * np.sin(2 * np.pi * 2900 * np.arange(len(wave_S)) / RATE)


EVENTS = {
    "squeal": (squeal, LEVELS_DB),
    "1 knock": (knocks(1), LEVELS_DB),
    "2 knocks": (knocks(2), LEVELS_DB),
    "5 knocks": (knocks(5), LEVELS_DB),
    "bang": (bang, LEVELS_DB),
    "rub": (rub, LEVELS_DB),
    "tone": (tone, TONES_DB),
}


def cases(corpus: Path) -> Iterator[tuple[str, list[Path], list[Path]]]:
    """Name, recordings to learn from, and normal ones that events are added to."""
    slider, fan = corpus / "dcase2020/slider", corpus / "mimii_fan_0dB/fan"
    yield "slider id_00", sorted(slider.glob("train/*id_00*")), sorted(slider.glob("test/normal_id_00*"))
    motors = sorted((corpus / "bldc_audio/BLDC/all").glob("*_normal_*"))
    for first in range(3):
        yield "BLDC", [file for n, file in enumerate(motors) if n % 3 != first], motors[first::3]
    fans = sorted(fan.glob("train/*")) + sorted(fan.glob("test/normal*"))
    for first in range(2):
        yield "fan id_00", [file for n, file in enumerate(fans) if n % 2 != first], fans[first::2]


def sounds(files: list[Path]) -> Iterator[tuple[str, Wave]]:
    """Name of what was added, and the recording with it; first without."""
    for number, file in enumerate(files):
        wave_S = decode(file).samples_CS[0].astype(np.float64)
        yield "nothing", wave_S
        for name, (added, levels_db) in EVENTS.items():
            for level_db in levels_db:
                amplitude = np.sqrt(np.mean(wave_S**2)) * 10 ** (level_db / 20)
                mixed_S = wave_S + added(wave_S, amplitude, np.random.default_rng(number))
                yield f"{name} {level_db:+d} dB", mixed_S / max(1.0, float(np.abs(mixed_S).max()))


def beside(python: str, learned: list[Path], waves: list[Wave]) -> list[tuple[float, bool]]:
    """Highest score of audio-anomaly, and whether it reports anything."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, wave_S in enumerate(waves):
            names.append(f"{folder}/{number}.wav")
            sf.write(names[-1], wave_S, RATE)
        Path(folder, "reference").write_text("\n".join(map(str, learned)))
        program = [python, "-c", BESIDE_PROGRAM, f"{folder}/reference"]
        printed = subprocess.run(program, input="\n".join(names), check=True, capture_output=True, text=True).stdout
    return [(float(line.split()[0]), int(line.split()[1]) > 0) for line in printed.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", metavar="PYTHON")
    parser.add_argument("--sentences", action="store_true")
    options = parser.parse_args()
    judged: dict[str, dict[str, list[tuple[str, float, str, float, bool]]]] = {}
    for case, learned, normal in cases(shared_folder() / "corpus"):
        detector = harken.Detector.fit(learned)
        names, waves = zip(*sounds(normal), strict=True)
        others = beside(options.beside, learned, list(waves)) if options.beside else [(0.0, False)] * len(waves)
        for name, wave_S, (other_score, other_alarm) in zip(names, waves, others, strict=True):
            verdict = detector.score(wave_S, RATE)
            row = (verdict.kind, -np.log(verdict.p_value or 1.0), verdict.why or "", other_score, other_alarm)
            judged.setdefault(case, {}).setdefault(name, []).append(row)
    print("| machine | added | recordings | alarm | suspect | AUC | sentence of the first |" + " aa reports | aa AUC |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case, by_name in judged.items():
        normal_rows = by_name["nothing"]
        for name, rows in by_name.items():
            kinds = [row[0] for row in rows]
            truth = [0] * len(normal_rows) + [1] * len(rows)
            auc, other_auc = (roc_auc_score(truth, [r[column] for r in [*normal_rows, *rows]]) for column in (1, 3))
            print(
                f"| {case} | {name} | {len(rows)} | {kinds.count('alarm')} | {kinds.count('suspect')} | {auc:.2f} "
                f"| {rows[0][2]} | {sum(row[4] for row in rows)} | {other_auc:.2f} |"
            )
            if options.sentences:
                for row in rows:
                    print(f"    {row[0]}: {row[2]}")


if __name__ == "__main__":
    main()

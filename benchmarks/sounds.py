"""Short events and tones in real recordings: are they alarms, and what does the sentence say of them?

    python benchmarks/sounds.py [--beside PYTHON] [--pyod PYTHON] [--sentences]

Events are added to normal recordings that were not learned from (slider, fan), or are left out in turn (motors), at a
level in dB relative to the recording's. PYTHON: an interpreter with audio-anomaly, or pyod and librosa, installed (no
dependencies of Harken), which is given the same sounds and all normal recordings as its reference; both at their
defaults (PyOD: `EmbeddingOD.for_audio()`, and its labels).
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


PYOD_PROGRAM = """
import sys, warnings
warnings.filterwarnings("ignore")
from pyod.models.embedding import EmbeddingOD
model = EmbeddingOD.for_audio()
model.fit(open(sys.argv[1]).read().split("\\n"))
names = [name.strip() for name in sys.stdin]
for score, label in zip(model.decision_function(names), model.predict(names)):
    print(float(score), int(label), flush=True)
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


def beside(python: str, program: str, learned: list[Path], waves: list[Wave]) -> list[tuple[float, bool]]:
    """Score of another detector for each, the highest where it has several, and whether it reports anything."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, wave_S in enumerate(waves):
            names.append(f"{folder}/{number}.wav")
            sf.write(names[-1], wave_S, RATE)
        Path(folder, "reference").write_text("\n".join(map(str, learned)))
        command = [python, "-c", program, f"{folder}/reference"]
        printed = subprocess.run(command, input="\n".join(names), check=True, capture_output=True, text=True).stdout
    return [(float(line.split()[0]), int(line.split()[1]) > 0) for line in printed.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", metavar="PYTHON", help="with audio-anomaly")
    parser.add_argument("--pyod", metavar="PYTHON")
    parser.add_argument("--sentences", action="store_true")
    options = parser.parse_args()
    others = [("aa", options.beside, BESIDE_PROGRAM), ("PyOD", options.pyod, PYOD_PROGRAM)]
    others = [(label, python, program) for label, python, program in others if python]
    judged: dict[str, dict[str, list[tuple[str, str, list[float], list[bool]]]]] = {}
    for case, learned, normal in cases(shared_folder() / "corpus"):
        detector = harken.Detector.fit(learned)
        names, waves = zip(*sounds(normal), strict=True)
        theirs = [beside(python, program, learned, list(waves)) for _, python, program in others]
        for number, (name, wave_S) in enumerate(zip(names, waves, strict=True)):
            verdict = detector.score(wave_S, RATE)
            scores = [-np.log(verdict.p_value or 1.0), *(judgements[number][0] for judgements in theirs)]
            row = (verdict.kind, verdict.why or "", scores, [judgements[number][1] for judgements in theirs])
            judged.setdefault(case, {}).setdefault(name, []).append(row)
    beside_cells = "".join(f" {label} reports | {label} AUC |" for label, _, _ in others)
    print(f"| machine | added | recordings | alarm | suspect | AUC | sentence of the first |{beside_cells}")
    print("|---" * (7 + 2 * len(others)) + "|")
    for case, by_name in judged.items():
        normal_rows = by_name["nothing"]
        for name, rows in by_name.items():
            kinds = [row[0] for row in rows]
            truth = [0] * len(normal_rows) + [1] * len(rows)
            auc, *their_aucs = (
                roc_auc_score(truth, [row[2][column] for row in [*normal_rows, *rows]])
                for column in range(1 + len(others))
            )
            cells = "".join(
                f" {sum(row[3][number] for row in rows)} | {their_auc:.2f} |"
                for number, their_auc in enumerate(their_aucs)
            )
            print(
                f"| {case} | {name} | {len(rows)} | {kinds.count('alarm')} | {kinds.count('suspect')} | {auc:.2f} "
                f"| {rows[0][1]} |{cells}"
            )
            if options.sentences:
                for row in rows:
                    print(f"    {row[0]}: {row[1]}")


if __name__ == "__main__":
    main()

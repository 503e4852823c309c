"""False alarms of normal clips that are shorter or longer than those learned from, relative to the set rate.

    python benchmarks/lengths.py [--rate 0.05] [--seconds 4] [--splits 4]

Machines: three of the simulator (60 clips learned from), and the real slider id_00 of DCASE 2020 and MIMII fan id_00
in splits of their normal clips, half of them learned from. Clips of another length are cut at random places of longer
ones. Printed per length: alarms per judged clip / set rate, and the share of clips not judged where there are any.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf

import harken
from shared_folder import shared_folder

RATIOS = (0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.25, 1.5, 3.0)
SIMULATED = ("pump", "fan", "slider")


def simulated(folder: Path, machine: str, seconds: float) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """60 clips to learn from and 80 others, 3 times as long as `seconds`."""
    arguments = f"simulate {folder} --machine {machine} --train-source 140 --train-target 0 --test 1 --supplemental 1"
    command = [str(Path(sys.executable).with_name("harken")), *arguments.split(), "--seconds", f"{3.1 * seconds}"]
    subprocess.run(command, check=True, capture_output=True)
    sounds = [sf.read(path)[0] for path in sorted(folder.rglob("*train_normal*.wav"))]
    return sounds[:60], sounds[60:], 16_000


def real(splits: int) -> Iterator[tuple[str, list[np.ndarray], list[np.ndarray], int]]:
    corpus = shared_folder() / "corpus"
    for name, paths in {
        "slider id_00": sorted(corpus.glob("dcase2020/slider/*/*normal_id_00*")),
        "MIMII fan id_00": sorted(corpus.glob("mimii_fan_0dB/fan/*/*normal*")),
    }.items():
        sounds = [sf.read(path)[0] for path in paths]
        for split in range(splits):
            order = np.random.default_rng(split).permutation(len(sounds))
            half = (len(sounds) + 1) // 2
            yield name, [sounds[i] for i in order[:half]], [sounds[i] for i in order[half:]], 16_000


def alarms(
    learned: list[np.ndarray], others: list[np.ndarray], rate: int, seconds: float, alarm_rate: float
) -> dict[float, tuple[int, int, int]]:
    """Per ratio of lengths: alarms, judged and all clips."""
    rng = np.random.default_rng(0)
    counts = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def clip(name: str, sound: np.ndarray, length_s: float) -> Path:
            frames = round(length_s * rate)
            begin = int(rng.integers(0, len(sound) - frames + 1))
            sf.write(folder / name, sound[begin : begin + frames], rate)
            return folder / name

        normal = [clip(f"normal_{number:04d}.wav", sound, seconds) for number, sound in enumerate(learned)]
        detector = harken.Detector.fit(normal, false_alarms=f"{100 * alarm_rate:g}%", workers=1)
        for ratio in RATIOS:
            if min(map(len, others)) < round(ratio * seconds * rate):
                continue
            clips = [clip(f"{ratio}_{number:04d}.wav", sound, ratio * seconds) for number, sound in enumerate(others)]
            verdicts = list(detector.score_many(clips, workers=1))
            judged = [verdict for verdict in verdicts if verdict.kind != "not judged"]
            counts[ratio] = sum(verdict.kind == "alarm" for verdict in judged), len(judged), len(verdicts)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of simulated clips that are learned from")
    parser.add_argument("--real-seconds", type=float, nargs="+", default=[5.0, 1.6])
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--simulated", nargs="*", default=list(SIMULATED), choices=SIMULATED)
    arguments = parser.parse_args()
    print(f"{'machine':<28}" + "".join(f"{ratio:>12g}" for ratio in RATIOS))
    pooled: dict[float, np.ndarray] = defaultdict(lambda: np.zeros(3, dtype=int))
    rows: dict[str, dict[float, np.ndarray]] = defaultdict(lambda: defaultdict(lambda: np.zeros(3, dtype=int)))

    def show(name: str, counts: dict[float, np.ndarray]) -> None:
        cells = []
        for ratio in RATIOS:
            rung, judged, clips = counts[ratio]
            share = "" if judged == clips else f" ({1 - judged / clips:.0%})"
            cells.append("" if not clips else f"{rung / judged / arguments.rate if judged else 0:.1f}{share}")
        print(f"{name:<28}" + "".join(f"{cell:>12}" for cell in cells), flush=True)

    def add(name: str, learned: list[np.ndarray], others: list[np.ndarray], rate: int, seconds: float) -> None:
        for ratio, counts in alarms(learned, others, rate, seconds, arguments.rate).items():
            rows[name][ratio] += counts
            pooled[ratio] += counts

    for machine in arguments.simulated:
        with tempfile.TemporaryDirectory() as temporary:
            learned, others, rate = simulated(Path(temporary), machine, arguments.seconds)
        name = f"{machine}, {arguments.seconds:g} s"
        add(name, learned, others, rate, arguments.seconds)
        show(name, rows[name])
    names = []
    for seconds in arguments.real_seconds:
        for machine, learned, others, rate in real(arguments.splits):
            names.append(f"{machine}, {seconds:g} s")
            add(names[-1], learned, others, rate, seconds)
    for name in dict.fromkeys(names):
        show(name, rows[name])
    show("all", pooled)


if __name__ == "__main__":
    main()

"""Steady tones: false alarms, faults and tones found by models without a view of tones and with it.

    python benchmarks/tones.py [--splits 2] [--first-split 1000] [--sizes 20 60 200 600] [--ids 00 02 04 06]
    python benchmarks/tones.py --simulated [--seed 0] [--splits 4] [--first-split 0] [--sizes 15 40 120]

Clips of twelve machines as in `alarms.py`; their mean spectra stand for short-time levels, which these features lack.
--simulated: 500 normal clips of 3 s of each of six simulated machines instead. A tone raises a band of a new normal
clip by 4 or 8 dB, and the next one by 3 dB less. Cells, all views together: observed / set rate over all machines and
on the worst one, and shares found: of the faults, and of the tones at 4 and at 8 dB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idct

import harken
from alarms import MACHINES
from harken.core.threads import one_thread
from harken.detection import create_detector
from harken.detection.calibration import Calibration
from harken.detection.details import DetailView, event_detector, tone_detector
from harken.monitor.alarm import AlarmSetting
from shared_folder import shared_folder

Float64 = NDArray[np.float64]
BANDS = 128
RATES = ("auto", "1%", "0.1%")
SIMULATED = ("bearing", "fan", "gearbox", "pump", "slider", "valve")


@dataclass(frozen=True)
class Levels:
    """Of (N,) clips: embeddings, short-time and steady levels."""

    embeddings_ND: Float64
    short_time_NE: Float64
    steady_NB: Float64

    @classmethod
    def of_spectra(cls, spectra_NB: Float64) -> Levels:
        """Of features without short-time levels."""
        return cls(spectra_NB, spectra_NB, spectra_NB - np.median(spectra_NB, axis=1, keepdims=True))

    def of(self, rows: NDArray[np.integer]) -> Levels:
        return Levels(self.embeddings_ND[rows], self.short_time_NE[rows], self.steady_NB[rows])

    def with_tones(self, rise_db: float, rng: np.random.Generator) -> Levels:
        """Each with a tone in a band of its own."""
        toned_NB, rows = self.steady_NB.copy(), np.arange(len(self.steady_NB))
        bands = rng.integers(toned_NB.shape[1] // 6, toned_NB.shape[1] - 8, len(rows))
        toned_NB[rows, bands] += rise_db
        toned_NB[rows, bands + 1] += rise_db - 3
        return replace(self, steady_NB=toned_NB)


@dataclass(frozen=True)
class Trial:
    """Clips of a machine to learn from, new normal ones with weights of sum 1, and faults."""

    train: Levels
    domains_N: NDArray[np.str_]
    normals: Levels
    weights_N: Float64
    faults: Levels


def of_machines(size: int, machine: str, splits: range) -> Iterator[Trial]:
    """Of a machine of `alarms.py`."""
    arrays = np.load(shared_folder() / "features" / "mimii_fan_pump_slider_feat136.npz")
    key = machine.replace(" ", "__snr{}_") + "_{}"
    normal6, normal0, fault6, fault0 = (
        np.asarray(idct(arrays[key.format(snr, condition)][:, :BANDS].astype(np.float64), norm="ortho", axis=1))
        for condition in ("normal", "abnormal")
        for snr in ("6", "0")
    )
    for split in splits:
        rng = np.random.default_rng([split, MACHINES.index(machine)])
        order, faulty = rng.permutation(len(normal6)), rng.permutation(len(fault6))
        source, half = min(size, len(order) - 160), len(faulty) // 2
        new = order[source + 10 :][:700]
        yield Trial(
            Levels.of_spectra(np.concatenate([normal6[order[:source]], normal0[order[source : source + 10]]])),
            np.repeat(["source", "target"], [source, 10]),
            Levels.of_spectra(np.concatenate([normal6[new], normal0[new]])),
            np.repeat(np.array([source, 10]) / (source + 10) / len(new), len(new)),
            Levels.of_spectra(np.concatenate([fault6[faulty[:half]], fault0[faulty[half:]]])),
        )


def simulated(machine: str, seed: int) -> tuple[Levels, Levels]:
    """Normal and faulty clips."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = f"simulate {folder}/plant --machine {machine} --train-source 500 --train-target 0 --test 30"
        command = [str(Path(sys.executable).with_name("harken")), *arguments.split()]
        settings = ["--supplemental", "1", "--seconds", "3", "--seed", str(seed)]
        subprocess.run(command + settings, check=True, capture_output=True)
        normal, faulty = (sorted(Path(folder).rglob(f"*{kind}*.wav")) for kind in ("train_normal", "test_anomaly"))
        detector = harken.Detector.fit(normal[:20])
        levels = []
        for files in (normal, faulty):
            clips = [v.features for v in detector.score_many(files, workers=1) if v.features is not None]
            columns = (
                np.stack([getattr(clip, name) for clip in clips]).astype(np.float64)
                for name in ("embedding", "short_time_D", "steady_B")
            )
            levels.append(Levels(*columns))
    return levels[0], levels[1]


def of_simulated(size: int, number: int, normal: Levels, faults: Levels, splits: range) -> Iterator[Trial]:
    """number: of the machine."""
    count = len(normal.embeddings_ND)
    for split in splits:
        order = np.random.default_rng([split, number]).permutation(count)
        weights_N = np.full(count - size, 1 / (count - size))
        yield Trial(normal.of(order[:size]), np.full(size, ""), normal.of(order[size:]), weights_N, faults)


def cells(trial: Trial, rng: np.random.Generator) -> dict[str, list[float]]:
    """For each kind of model: of each rate the set rate, false alarms and three shares found."""
    sets = [trial.normals, trial.faults, trial.normals.with_tones(4, rng), trial.normals.with_tones(8, rng)]
    train = trial.train

    def view(unfitted, levels_ND: Float64) -> DetailView:
        return DetailView.fit(unfitted, levels_ND, trial.domains_N, ordered=False)

    with one_thread():
        sound = create_detector("local_density").fit(train.embeddings_ND, trial.domains_N)
    calibration = Calibration.independent(sound.train_scores_)
    events, tones = view(event_detector(), train.short_time_NE), view(tone_detector(), train.steady_NB)
    rows = {}
    for kind, tone_view in (("no tones", None), ("in a view", tones)):
        rows[kind] = row = []
        for asked in RATES:
            tone_calibration = tone_view and tone_view.calibration
            alarm = AlarmSetting(asked, calibration, 10.0, events=events.calibration, tones=tone_calibration)
            ringing = []
            for levels in sets:
                with one_thread():
                    alarm_N = sound.score(levels.embeddings_ND) > alarm.threshold
                alarm_N |= events.score(levels.short_time_NE) > alarm.event_threshold
                if tone_view is not None:
                    alarm_N |= tone_view.score(levels.steady_NB) > alarm.tone_threshold
                ringing.append(alarm_N)
            row += [alarm.rate, float(trial.weights_N[ringing[0]].sum()), *(float(each.mean()) for each in ringing[1:])]
    return rows


def trials(options: argparse.Namespace) -> Iterator[tuple[int, str, Trial]]:
    """Size, machine and trial."""
    splits = range(options.first_split, options.first_split + options.splits)
    if not options.simulated:
        for size in options.sizes or (20, 60, 200, 600):
            for machine in (machine for machine in MACHINES if machine[-2:] in options.ids):
                yield from ((size, machine, trial) for trial in of_machines(size, machine, splits))
        return
    sounds = {machine: simulated(machine, options.seed) for machine in SIMULATED}
    for size in options.sizes or (15, 40, 120):
        for number, (machine, levels) in enumerate(sounds.items()):
            yield from ((size, machine, trial) for trial in of_simulated(size, number, *levels, splits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--first-split", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="*")
    parser.add_argument("--ids", nargs="*", default=["00", "02", "04", "06"])
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated machines")
    values: dict[tuple[int, str], dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for number, (size, machine, trial) in enumerate(trials(parser.parse_args())):
        for kind, row in cells(trial, np.random.default_rng(number)).items():
            values[size, kind][machine].append(row)
    for (size, kind), by_machine in values.items():
        means = np.array([np.mean(rows, axis=0) for rows in by_machine.values()]).reshape(
            len(by_machine), len(RATES), 5
        )
        shown = [
            f"{rate}: {means[:, n, 1].mean() / means[:, n, 0].mean():5.2f} "
            f"{(means[:, n, 1] / means[:, n, 0]).max():5.1f} "
            + " ".join(f"{share:.2f}" for share in means[:, n, 2:].mean(axis=0))
            for n, rate in enumerate(RATES)
        ]
        print(f"N={size:<4} {kind:<13} {'   '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()

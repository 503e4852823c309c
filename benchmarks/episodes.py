"""False episodes per week and clips until the alarm of the sequential test, at one false episode per week.

    python benchmarks/episodes.py [--seeds 6] [--first-seed 0] [--sizes 60 200 600]

Clips of the trials of `benchmarks/alarms.py`, drawn independently: a week of new normal clips of 10 s (60,480), counted
up to the alarm and begun anew after it; and faults, from the first clip on. Then the normal recordings in their
own order, learned from 200 that are spread over all of them or from the first 200.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idct

from alarms import MACHINES, Trial, toycar_trials, trials
from harken.core.threads import one_thread
from harken.detection import create_detector
from harken.detection.calibration import Calibration
from harken.detection.sequential import EDetector
from shared_folder import shared_folder

WEEK = 60_480
RATE = 1 / WEEK
LIMIT, REPEATS = 200, 200
#: name, exponent, share of sets of normal clips, whether evidence is a maximum (CUSUM) instead of a sum
TESTS = [
    ("bet 0.5, on average", 0.5, 0.0, False),
    ("bet 0.5, 95 % of sets", 0.5, 0.95, False),
    ("bet 0.3, on average", 0.3, 0.0, False),
    ("bet 0.3, 95 % of sets", 0.3, 0.95, False),
    ("CUSUM, bet 0.3, 99 %", 0.3, 0.99, True),
    ("DEFAULT bet 0.3, 99 %", 0.3, 0.99, False),
]


def false_episodes(values: list[NDArray[np.float64]], weights: list[NDArray[np.float64]], maximum: bool) -> NDArray:
    """(trials,) alarms in a week of normal clips drawn from each list of e-values."""
    rng = np.random.default_rng(0)
    statistic, count = np.zeros(len(values)), np.zeros(len(values))
    for start in range(0, WEEK, 2_000):
        steps = min(2_000, WEEK - start)
        drawn = [value[np.searchsorted(w.cumsum(), rng.random(steps) * w.sum())] for value, w in zip(values, weights)]  # noqa: B905
        for e_values in np.stack(drawn, axis=1):
            statistic = (np.maximum(statistic, 1.0) if maximum else statistic + 1.0) * e_values
            alarm = statistic >= WEEK
            count += alarm
            statistic[alarm] = 0.0
    return count


def delay(values: NDArray[np.float64], maximum: bool) -> float:
    """Median number of clips until the alarm, each clip a fault; `LIMIT` where there is none."""
    drawn = np.random.default_rng(1).choice(values, (LIMIT, REPEATS))
    statistic, clips = np.zeros(REPEATS), np.full(REPEATS, LIMIT)
    for step, e_values in enumerate(drawn, start=1):
        statistic = (np.maximum(statistic, 1.0) if maximum else statistic + 1.0) * e_values
        clips[(statistic >= WEEK) & (clips == LIMIT)] = step
    return float(np.median(clips))


def independent(chosen: Sequence[Trial]) -> None:
    print("false episodes per week: mean, worst machine; clips until the alarm: median, worst machine")
    for size in sorted({trial.size for trial in chosen}):
        of_size = [trial for trial in chosen if trial.size == size]
        machine = np.array([trial.machine for trial in of_size])
        calibrations = [Calibration.independent(trial.scores) for trial in of_size]
        for name, bet, confidence, maximum in TESTS:
            detectors = [EDetector(item, RATE, bet=bet, confidence=confidence) for item in calibrations]
            pairs = list(zip(detectors, of_size, strict=True))
            values = [detector.e_values(trial.normals) for detector, trial in pairs]
            count = false_episodes(values, [trial.weights for trial in of_size], maximum)
            clips = np.array([delay(detector.e_values(trial.faults), maximum) for detector, trial in pairs])
            weekly = [count[machine == one].mean() for one in np.unique(machine)]
            until = [np.median(clips[machine == one]) for one in np.unique(machine)]
            late = np.mean(clips > 30)
            print(
                f"N={size:<4} {name:<24} {np.mean(weekly):6.2f} {max(weekly):6.1f}   {np.median(until):4.0f} "
                f"{max(until):4.0f}   splits beyond 30 clips: {late:.0%}",
                flush=True,
            )


def in_order(learned: int = 200) -> None:
    print("\nnormal recordings in their own order: false episodes, recordings; clips until the alarm for faults")
    arrays = np.load(shared_folder() / "features" / "mimii_fan_pump_slider_feat136.npz")
    totals: dict[str, list[float]] = {"spread": [], "first": []}
    for machine in MACHINES:
        key = machine.replace(" ", "__snr6_") + "_{}"
        normal, faults = (
            np.asarray(idct(arrays[key.format(condition)][:, :128].astype(np.float64), norm="ortho", axis=1))
            for condition in ("normal", "abnormal")
        )
        cells = ""
        for way, rows in (
            ("spread", np.linspace(0, len(normal) - 1, learned).round().astype(int)),
            ("first", np.arange(learned)),
        ):
            with one_thread():
                fitted = create_detector("local_density").fit(normal[rows])
                scores = fitted.score(np.delete(normal, rows, axis=0))
                faulty = fitted.score(faults)
            # Drawn evenly, the scores are hardly correlated, and the first ones are correlated but few.
            detector = EDetector(Calibration.fit(fitted.train_scores_), RATE)
            alarms = np.array([False, *(evidence.alarm for evidence in detector.run(scores))])
            count = int((alarms[1:] & ~alarms[:-1]).sum())
            # Faults in their own order, after all normal recordings if no alarm is on.
            ring = next((state.clips for state in detector.run(faulty) if state.alarm), LIMIT)
            totals[way].append(count)
            cells += (
                f"   {way}: {count:3d} of {len(scores)} (effective {detector.calibration.effective:.0f}), {ring:3d}"
            )
        print(f"{machine:<14}{cells}", flush=True)
    print("all: " + ", ".join(f"{way} {sum(values):.0f}" for way, values in totals.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="*", default=[60, 200, 600])
    options = parser.parse_args()
    all_seeds = range(options.first_seed, options.first_seed + options.seeds)
    independent(trials(all_seeds, options.sizes, "local_density"))
    print("ToyCar id_04")
    independent(toycar_trials(all_seeds, [size for size in options.sizes if size <= 200], "local_density"))
    in_order()

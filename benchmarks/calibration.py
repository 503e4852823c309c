"""False-alarm rates on correlated scores: alarm episodes and alarms, relative to the given rate.

    python benchmarks/calibration.py [--runs 100]
    python benchmarks/calibration.py --few [--runs 40]

Scores are a Gaussian AR(1) process or its exponential. N training clips, then 20,000 new ones. An episode is a run of
alarms. `*`: rate lower than the data supports (extrapolated) in most runs.

--few: from embeddings on, of which each dimension is such a process: N recordings as `harken fit` learns from them,
then 300 independent ones; alarms relative to the given rate, and the share of runs in which `fit` says that the rate is
beyond what the recordings support.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.signal import lfilter

from harken.detection import create_detector
from harken.detection.base import AnomalyDetector
from harken.detection.blocks import block_numbers, find_blocks
from harken.detection.calibration import Calibration
from harken.detection.independent import independent_recordings

RATES = (0.1, 0.05, 0.02, 0.01, 0.001)
NEW = 20_000


def autoregressive(count: int, rho: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(size=count + 2_000) * np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1], [1, -rho], noise))[2_000:]


def main(runs: int) -> None:
    rng = np.random.default_rng(0)
    print(f"{'scores':<10} {'rho':>5} {'N':>5} {'eff. N':>6}   episodes / rate, alarms / rate")
    print(" " * 32 + "".join(f"{rate:>16.1%}" for rate in RATES))
    for law in ("gaussian", "lognormal"):
        for rho in (0.0, 0.9, 0.99):
            for count in (200, 1_000):
                totals = {rate: np.zeros(3) for rate in RATES}
                effective = []
                for _ in range(runs):
                    scores = autoregressive(count + 500 + NEW, rho, rng)
                    scores = np.exp(0.5 * scores) if law == "lognormal" else scores
                    calibration = Calibration.fit(scores[:count])
                    effective.append(calibration.effective)
                    for rate in RATES:
                        alarm = scores[count + 500 :] > calibration.threshold(rate)
                        episodes = int(alarm[0]) + int((alarm[1:] & ~alarm[:-1]).sum())
                        totals[rate] += np.array([episodes, alarm.sum(), calibration.extrapolated(rate) * NEW * rate])
                cells = ""
                for rate in RATES:
                    episodes, alarms, beyond = totals[rate] / (runs * NEW * rate)
                    cells += f"{episodes:8.2f} {alarms:5.2f}{'*' if beyond > 0.5 else ' '} "
                print(f"{law:<10} {rho:5.2f} {count:5d} {np.median(effective):6.0f}   {cells}", flush=True)


def few(runs: int) -> None:
    rates = (0.1, 0.05, 0.01)
    print(f"{'detector':<16}{'rho':>5}{'N':>5}{'D':>4}{'worth':>7}   alarms / rate, said to be beyond support")
    print(" " * 40 + "".join(f"{rate:>16.0%}" for rate in rates))
    for rho in (0.0, 0.5, 0.9):
        for count in (20, 50, 100, 200):
            for dimensions in (8, 64):
                for name in ("local_density", "knn"):
                    rng = np.random.default_rng(0)
                    alarms, said, worth = np.zeros(len(rates)), np.zeros(len(rates)), []
                    for _ in range(runs):
                        rows_ND = np.stack([autoregressive(count, rho, rng) for _ in range(dimensions)], axis=1)
                        calibration, detector = learned(name, rows_ND)
                        scores_N = detector.score(rng.normal(size=(300, dimensions)))
                        worth.append(calibration.effective)
                        for column, rate in enumerate(rates):
                            alarms[column] += np.mean(scores_N > calibration.threshold(rate)) / rate
                            said[column] += calibration.unsupported(rate)
                    cells = "".join(f"{a / runs:10.2f} {s / runs:5.2f}" for a, s in zip(alarms, said, strict=True))
                    line = f"{name:<16}{rho:5.1f}{count:5d}{dimensions:4d}{np.median(worth):7.0f}"
                    print(f"{line}   {cells}", flush=True)


def learned(name: str, rows_ND: np.ndarray) -> tuple[Calibration, AnomalyDetector]:
    """As `harken fit`: held out by blocks in time, worth as many recordings as are independent."""
    blocks = find_blocks(rows_ND)
    numbers_N = block_numbers(blocks.length, len(rows_ND)) if blocks.length > 1 else None
    detector = create_detector(name).fit(rows_ND, None, numbers_N)
    independent = independent_recordings(rows_ND) if blocks.length > 1 else len(rows_ND)
    return Calibration.fit(detector.train_scores_).worth(independent), detector


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=None)
    parser.add_argument("--few", action="store_true")
    given = parser.parse_args()
    if given.few:
        few(given.runs or 40)
    else:
        main(given.runs or 100)

"""A lasting change at one false report per week: delay by the p-value of each clip, false reports by correlation.

    python benchmarks/lasting.py [--sets 100] [--weeks 2]

Scores of normal clips are Gaussian with a correlation rho from one clip of 10 s to the next; the length of blocks is
that which `harken fit` estimates from the normal clips learned from. First table: clips until the report where every
clip has the p-value given. Second: false reports per week, over sets of normal clips: mean, and the share of sets above
1.5 per week; of those sets that support the test.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from harken.detection.calibration import Calibration
from harken.detection.sequential import EDetector
from harken.monitor.views import correlated_clips

WEEK = 60_480
SIZES = (20, 60, 200, 600)
LIMIT = 5_000


def normal_scores(count: int, rho: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count,) a first-order autoregressive process of unit variance."""
    start = rng.normal()
    return np.asarray(lfilter([1.0], [1.0, -rho], rng.normal(size=count) * np.sqrt(1 - rho**2), zi=[rho * start])[0])


def test_of(scores_N: NDArray[np.float64]) -> EDetector:
    """The test that a model fitted to these scores uses."""
    calibration = Calibration.fit(scores_N)
    return EDetector(calibration, 1 / WEEK, correlated_clips(len(scores_N), calibration.least_effective))


def delay(test: EDetector, p_value: float) -> int:
    """Clips until the report where each clip is as high as a share `p_value` of the normal ones; `LIMIT`: never."""
    scores = test.calibration.scores
    score = scores[-1] + 1 if p_value * (len(scores) + 1) < 1 else np.quantile(scores, 1 - p_value, method="higher")
    for clips, evidence in enumerate(test.run(np.full(LIMIT, score)), start=1):
        if evidence.alarm:
            return clips
    return LIMIT


def false_reports(test: EDetector, clips: int, rho: float, rng: np.random.Generator) -> int:
    """Reports among normal clips; the test begins anew after each."""
    usable = clips // test.block * test.block
    e_values = test.e_values(normal_scores(usable, rho, rng)).reshape(-1, test.block).mean(axis=1)
    statistic, reports = 0.0, 0
    for value in e_values.tolist():
        statistic = (1.0 + statistic) * value
        if statistic >= test.level:
            statistic, reports = 0.0, reports + 1
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=100, help="sets of normal clips")
    parser.add_argument("--weeks", type=int, default=2)
    options = parser.parse_args()
    print("clips until the report, every clip at p =      0.1    0.05    0.01   0.001")
    for size in SIZES:
        tests = [test_of(normal_scores(size, 0.0, np.random.default_rng(seed))) for seed in range(9)]
        delays = [int(np.median([delay(test, p) for test in tests])) for p in (0.1, 0.05, 0.01, 0.001)]
        print(f"N={size:<38}" + "".join(f"{'never' if d == LIMIT else d:>8}" for d in delays))
    print("\nsets that support the test; of these: false reports per week (mean, share above 1.5), block, fewest clips")
    for rho in (0.0, 0.9, 0.99):
        for size in SIZES:
            rates, blocks, fewest = [], [], []
            for seed in range(options.sets):
                rng = np.random.default_rng([seed, size, round(100 * rho)])
                test = test_of(normal_scores(size, rho, rng))
                if not test.supported:
                    continue
                rates.append(false_reports(test, options.weeks * WEEK, rho, rng) / options.weeks)
                blocks.append(test.block)
                fewest.append(test.fewest_clips)
            label = f"rho={rho:<5} N={size:<5} {len(rates) / options.sets:6.0%}"
            if not rates:
                print(label)
                continue
            above = np.mean(np.array(rates) > 1.5)
            print(f"{label} {np.mean(rates):8.2f} {above:6.0%}   {np.median(blocks):5.0f} {np.median(fewest):7.0f}")


if __name__ == "__main__":
    main()

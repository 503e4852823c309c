"""False-alarm rates on correlated scores: alarm episodes and alarms, relative to the given rate.

    python benchmarks/calibration.py [--runs 100]

Scores are a Gaussian AR(1) process or its exponential. N training clips, then 20,000 new ones. An episode is a run of
alarms. `*`: rate lower than the data supports (extrapolated) in most runs.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.signal import lfilter

from harken.detection.calibration import Calibration

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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    main(parser.parse_args().runs)

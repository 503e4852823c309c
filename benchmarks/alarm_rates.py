"""Episodes of alarms per one that was asked for, and windows until the alarm, of the rule that the monitor uses.

    python benchmarks/alarm_rates.py [--sets 40] [--weeks 2] [--rates 1/week 1/quarter] [--correlations 0 .9 .99]
        [--sizes 200 600 2000 6000 20000] [--only correlated in_order]

First table: scores with a correlation rho from one window of 10 s to the next; normal windows of N windows, then
weeks of others. Second: the recordings of twelve MIMII machines in their own order (features of 10 s clips), learned
from 200 of them, at rates that a day of sound can show. Third: faults that are 3, 6 and 12 dB louder in an eighth of
the mel bands: windows until the alarm. Beside the rule: an alarm on every window above the limit of single windows
("every window"), and 5 of the latest 6 windows above the limit that one in 20 normal windows exceeds ("5 of 6").
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idct
from scipy.signal import lfilter

from alarms import MACHINES
from harken.core.threads import one_thread
from harken.detection import create_detector
from harken.detection.calibration import Calibration
from harken.monitor.alarm import AlarmSetting
from harken.monitor.verdict import Kind
from harken.monitor.views import correlated_clips
from harken.service.episode_rule import EpisodeMemory, EpisodeRule
from shared_folder import shared_folder

HOP_S = 10.0
WEEK = 60_480
START = datetime(2026, 1, 1, tzinfo=UTC)
#: an eighth of the mel bands, around 2 kHz
FAULTY_BANDS = slice(56, 72)
#: windows of a fault that are looked at
LIMIT = 360

Float64 = NDArray[np.float64]


def normal_scores(count: int, rho: float, rng: np.random.Generator) -> Float64:
    """(count,) a first-order autoregressive process of unit variance."""
    start = rng.normal()
    return np.asarray(lfilter([1.0], [1.0, -rho], rng.normal(size=count) * np.sqrt(1 - rho**2), zi=[rho * start])[0])


def rule_of(scores_N: Float64, rate: str) -> EpisodeRule:
    """The rule of a model fitted to these scores."""
    calibration = Calibration.fit(scores_N)
    return EpisodeRule(
        AlarmSetting(rate, calibration, HOP_S, correlated_clips(len(scores_N), calibration.least_effective))
    )


def run(rule: EpisodeRule, scores_N: Float64) -> NDArray[np.bool_]:
    """(N,) whether the machine sounds abnormal after each window. As `EpisodeRule.hear`, e-values at once."""
    e_values = np.zeros(len(scores_N)) if rule.lasting is None else rule.lasting.e_values(scores_N)
    calibration, threshold = rule.setting.calibration, rule.setting.threshold
    highest = float(calibration.scores[-1])
    memory, on = EpisodeMemory(), np.zeros(len(scores_N), dtype=bool)
    for row, (score, e_value) in enumerate(zip(scores_N.tolist(), e_values.tolist(), strict=True)):
        kind: Kind = "alarm" if score > threshold else "suspect" if score > highest else "normal"
        memory = rule.advance(memory, START, e_value, kind)
        on[row] = memory.on
    return on


def every_window(rule: EpisodeRule, scores_N: Float64) -> NDArray[np.bool_]:
    """(N,) whether each is an alarm by itself, at the whole rate."""
    setting = rule.setting
    return np.asarray(scores_N > setting.calibration.threshold(2 * setting.rate))


def five_of_six(rule: EpisodeRule, scores_N: Float64) -> NDArray[np.bool_]:
    """(N,) whether five of the latest six are above the limit of one in twenty."""
    above = scores_N > rule.setting.calibration.threshold(0.05)
    return np.convolve(above, np.ones(6))[: len(above)] >= 5


WAYS = {"rule": run, "every window": every_window, "5 of 6": five_of_six}


def begins(on_N: NDArray[np.bool_]) -> int:
    """Number of times it turns on."""
    return int((on_N & ~np.concatenate([[False], on_N[:-1]])).sum())


def correlated(sets: int, weeks: int, rates: Iterable[str], rhos: Iterable[float], sizes: Iterable[int]) -> None:
    print(
        "episodes per one that was asked for (mean over sets of normal windows; of the rule: share of sets above 1.5)"
    )
    for rate in rates:
        for rho in rhos:
            for size in sizes:
                counts: dict[str, list[float]] = {name: [] for name in WAYS}
                supported, fewest, missing = [], [], []
                for seed in range(sets):
                    rng = np.random.default_rng([seed, size, round(100 * rho)])
                    rule = rule_of(normal_scores(size, rho, rng), rate)
                    supported.append(rule.lasting is not None)
                    if rule.lasting is not None:
                        fewest.append(rule.lasting.fewest_clips)
                    missing.append(rule.missing_s / 3600)
                    scores = normal_scores(weeks * WEEK, rho, rng)
                    expected = 2 * rule.setting.change_rate * len(scores)
                    for name, way in WAYS.items():
                        counts[name].append(begins(way(rule, scores)) / expected)
                above = np.mean(np.array(counts["rule"]) > 1.5)
                print(
                    f"{rate:<10} rho={rho:<4} N={size:<6} rule {np.mean(counts['rule']):5.2f} ({above:4.0%})  "
                    f"every window {np.mean(counts['every window']):7.2f}  5 of 6 {np.mean(counts['5 of 6']):9.1f}  "
                    f"lasting changes: {np.mean(supported):4.0%} of sets, after {np.median(fewest or [0]):4.0f} "
                    f"windows; missing {np.median(missing):5.1f} h",
                    flush=True,
                )


def features(machine: str, condition: str) -> Float64:
    """(clips, 128) mean log-mel spectra in dB, at 6 dB of signal to noise."""
    arrays = np.load(shared_folder() / "features" / "mimii_fan_pump_slider_feat136.npz")
    key = machine.replace(" ", "__snr6_") + f"_{condition}"
    return np.asarray(idct(arrays[key][:, :128].astype(np.float64), norm="ortho", axis=1))


def in_order(learned: int = 200) -> None:
    print("\nrecordings of twelve machines in their own order: episodes / asked for, over all machines")
    totals: dict[tuple[str, str, str], float] = {}
    asked: dict[str, float] = {}
    rates = ("1/hour", "4/day", "1/day")
    delays: dict[tuple[str, str, int], list[float]] = {}
    for machine in MACHINES:
        normal = features(machine, "normal")
        for rows_name, rows in (
            ("spread", np.linspace(0, len(normal) - 1, learned).round().astype(int)),
            ("first", np.arange(learned)),
        ):
            with one_thread():
                fitted = create_detector("local_density").fit(normal[rows])
                scores = fitted.score(np.delete(normal, rows, axis=0))
            for rate in rates:
                rule = rule_of(fitted.train_scores_, rate)
                if rows_name == "spread":
                    asked[rate] = asked.get(rate, 0.0) + len(scores) * 2 * rule.setting.change_rate
                for name, way in WAYS.items():
                    totals[rows_name, rate, name] = totals.get((rows_name, rate, name), 0) + begins(way(rule, scores))
            if rows_name == "first":
                continue
            others = np.delete(normal, rows, axis=0)
            rng = np.random.default_rng(0)
            for db in (3, 6, 12):
                faulty = others[rng.permutation(len(others))[:LIMIT]].copy()
                faulty[:, FAULTY_BANDS] += db
                with one_thread():
                    faulty_scores = fitted.score(faulty)
                for rate in ("1/week", "1/quarter"):
                    rule = rule_of(fitted.train_scores_, rate)
                    for name, way in WAYS.items():
                        on = way(rule, faulty_scores)
                        delays.setdefault((rate, name, db), []).append(float(np.argmax(on)) + 1 if on.any() else np.inf)
    for rows_name in ("spread", "first"):
        for rate in rates:
            cells = "  ".join(
                f"{name} {totals[rows_name, rate, name]:5.0f} ({totals[rows_name, rate, name] / asked[rate]:6.2f})"
                for name in WAYS
            )
            print(f"learned from 200, {rows_name:<7} {rate:<8} asked for {asked[rate]:5.1f}   {cells}", flush=True)
    print("\nwindows of a fault until the alarm: median and worst of twelve machines, and machines never alarmed")
    for (rate, name, db), values in sorted(delays.items(), key=lambda item: (item[0][0], item[0][1], item[0][2])):
        array = np.array(values)
        print(
            f"{rate:<10} {name:<13} {db:3d} dB: {np.median(array):6.0f} {array.max():6.0f}  never: "
            f"{int(np.isinf(array).sum())} of {len(array)}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--weeks", type=int, default=2)
    parser.add_argument("--rates", nargs="*", default=["1/week", "1/quarter"])
    parser.add_argument("--correlations", type=float, nargs="*", default=[0.0, 0.9, 0.99])
    parser.add_argument("--sizes", type=int, nargs="*", default=[200, 600, 2000, 6000, 20_000])
    parser.add_argument("--only", nargs="*", choices=("correlated", "in_order"), default=["correlated", "in_order"])
    options = parser.parse_args()
    if "in_order" in options.only:
        in_order()
    if "correlated" in options.only:
        correlated(options.sets, options.weeks, options.rates, options.correlations, [*options.sizes])

"""False alarms and faults found at given rates: laws of the tail, on twelve machines and ToyCar id_04.

    python benchmarks/alarms.py [--seeds 10] [--first-seed 0] [--detector local_density] [--sizes 20 60 200 600]

Each machine: N clips at 6 dB and 10 at 0 dB are learned from; up to 700 other normal clips at both levels, weighted as
among the training clips, are the new normal ones, so that both are exchangeable. Faults: half at 6 dB, half at 0 dB.
Cells: observed / given rate, mean and worst machine, and share of the faults found. `exact`: the threshold at which
the observed rate is the given one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idct
from scipy.stats import beta

from beds import toycar
from harken.core.threads import one_thread
from harken.detection import create_detector
from harken.detection.calibration import Calibration
from harken.detection.tail import TailForm, fit_tail
from shared_folder import shared_folder

Float64 = NDArray[np.float64]
#: ascending scores and a rate -> threshold
Law = Callable[[Float64, float], float]

RATES = (0.05, 0.01, 0.001)
#: observed / given rate that is allowed, over all machines
ALLOWED = 1.5
SHARES, SHAPES = (0.1, 0.2, 0.3), (1e-9, 0.05, 0.1, 0.15)
HEIGHTS = (1.0, 1.25, 1.5, 2.0, 3.0)
MACHINES = [f"{kind} id_{number}" for kind in ("fan", "pump", "slider") for number in ("00", "02", "04", "06")]


@dataclass(frozen=True)
class Trial:
    """Scores of one machine and split. scores: held-out, ascending. weights: of the new normal clips, sum 1."""

    machine: str
    size: int
    scores: Float64
    normals: Float64
    weights: Float64
    faults: Float64

    def alarms(self, threshold: float) -> tuple[float, float]:
        """Share of the normal clips and of the faults above the threshold."""
        return float(self.weights[self.normals > threshold].sum()), float((self.faults > threshold).mean())

    def area(self) -> float:
        """Area under the ROC curve, the normal clips weighted."""
        below = [
            (self.weights * ((self.normals < score) + 0.5 * (self.normals == score))).sum() for score in self.faults
        ]
        return float(np.mean(below))

    def exact(self, rate: float) -> float:
        """Lowest threshold that at most `rate` of the new normal clips exceed."""
        order = np.argsort(-self.normals)
        first = int(np.searchsorted(np.cumsum(self.weights[order]), rate, side="right"))
        return float(self.normals[order][min(first, len(order) - 1)])


def trials(seeds: Iterable[int], sizes: Sequence[int], detector: str) -> list[Trial]:
    arrays = np.load(shared_folder() / "features" / "mimii_fan_pump_slider_feat136.npz")
    collected = []
    for index, machine in enumerate(MACHINES):
        key = machine.replace(" ", "__snr{}_") + "_{}"
        normal6, normal0, fault6, fault0 = (
            np.asarray(idct(arrays[key.format(snr, condition)][:, :128].astype(np.float64), norm="ortho", axis=1))
            for condition in ("normal", "abnormal")
            for snr in ("6", "0")
        )
        for seed in seeds:
            rng = np.random.default_rng([seed, index])
            order, faulty = rng.permutation(len(normal6)), rng.permutation(len(fault6))
            half = len(faulty) // 2
            for size in sizes:
                source = min(size, len(order) - 160)
                new = order[source + 10 :][:700]
                train = np.concatenate([normal6[order[:source]], normal0[order[source : source + 10]]])
                with one_thread():
                    fitted = create_detector(detector).fit(train, np.repeat(["source", "target"], [source, 10]))
                    normals = [fitted.score(normal6[new]), fitted.score(normal0[new])]
                    faults = [fitted.score(fault6[faulty[:half]]), fitted.score(fault0[faulty[half:]])]
                shares = np.array([source, 10]) / (source + 10)
                weights = np.repeat(shares / len(new), len(new))
                scores = np.sort(fitted.train_scores_)
                collected.append(Trial(machine, size, scores, np.concatenate(normals), weights, np.concatenate(faults)))
    return collected


def toycar_trials(seeds: Iterable[int], sizes: Sequence[int], detector: str) -> list[Trial]:
    bed = toycar(shared_folder())
    normal = np.concatenate([bed.train, bed.test[~bed.anomaly]])
    collected = []
    for seed in seeds:
        order = np.random.default_rng([seed, 99]).permutation(len(normal))
        for size in sizes:
            count = min(size, len(normal) - 100)
            with one_thread():
                fitted = create_detector(detector).fit(normal[order[:count]])
                normals = fitted.score(normal[order[count:]])
                faults = fitted.score(bed.test[bed.anomaly])
            weights = np.full(len(normals), 1 / len(normals))
            collected.append(Trial("ToyCar id_04", size, np.sort(fitted.train_scores_), normals, weights, faults))
    return collected


# ---- laws ----------------------------------------------------------------------------------------------------


def counts(scores: Float64, rate: float) -> float:
    """Conformal p-values only: no alarm at rates below 1 / (N + 1)."""
    allowed = int(np.floor(rate * (len(scores) + 1) - 1 + 1e-9))
    return float(scores[len(scores) - 1 - allowed]) if allowed >= 0 else float("inf")


def conditional_counts(scores: Float64, rate: float) -> float:
    """The rate holds for 9 of 10 sets of normal clips: the share above the j-th highest of N is Beta(j, N - j + 1)."""
    count = len(scores)
    ranks = np.arange(1, count + 1)
    allowed = int((beta.ppf(0.9, ranks, count - ranks + 1) <= rate).sum())
    return float(scores[count - allowed]) if allowed else float("inf")


def lomax(scores: Float64, rate: float) -> float:
    """Counts up to the highest score; beyond it, a Lomax law whose shape is a tenth of the number of scores."""
    count = len(scores)
    if rate >= 1 / (count + 1):
        return counts(scores, rate)
    excesses = int(np.clip(round(0.1 * count), 5, count - 1))
    excess = scores[count - excesses :] - scores[count - excesses - 1]
    scale = excess.mean() + excess[-1] / excesses
    return float(scores[-1] + scale * excesses * ((1 / (count + 1) / rate) ** (1 / excesses) - 1))


def exponential(scores: Float64, rate: float) -> float:
    """Exponential excesses over the ninth decile, with their mean."""
    count = len(scores)
    excesses = max(round(0.1 * count), min(10, count // 2))
    base = scores[count - excesses - 1]
    share = (excesses + 1) / (count + 1)
    mean = float((scores[count - excesses :] - base).mean())
    return float(base + mean * np.log(share / rate)) if rate < share else counts(scores, rate)


def shrunk(scores: Float64, rate: float, spread: float = 0.1) -> float:
    """Generalised Pareto, shape and scale at their greatest posterior density; shape ~ N(0, spread^2)."""
    count = len(scores)
    excesses = max(round(0.1 * count), min(10, count // 2))
    base = scores[count - excesses - 1]
    excess, share = scores[count - excesses :] - base, (excesses + 1) / (count + 1)
    if rate >= share:
        return counts(scores, rate)
    shape_S1 = np.linspace(-0.5, 0.7, 48)[:, None]  # an even number: none is 0
    scale_C = excess.mean() * np.exp(np.linspace(-1.2, 1.2, 49))
    factor_SCK = 1 + (shape_S1 / scale_C)[..., None] * excess
    inside_SC = (factor_SCK > 0).all(axis=2)
    logs_SC = np.log(np.maximum(factor_SCK, 1e-300)).sum(axis=2)
    density_SC = -excesses * np.log(scale_C) - (1 + 1 / shape_S1) * logs_SC - 0.5 * (shape_S1 / spread) ** 2
    row, column = np.unravel_index(np.where(inside_SC, density_SC, -np.inf).argmax(), density_SC.shape)
    shape, scale = float(shape_S1[row, 0]), float(scale_C[column])
    return float(base + scale / shape * ((share / rate) ** shape - 1))


def pareto(share: float, shape: float) -> Law:
    """That of `harken.detection.tail`, with other settings."""

    def law(scores: Float64, rate: float) -> float:
        tail = fit_tail(scores, float(len(scores)), TailForm(shape=shape), share=share)
        return tail.quantile(rate) if rate < tail.share else counts(scores, rate)

    return law


def default(scores: Float64, rate: float) -> float:
    return Calibration.independent(scores).threshold(rate)


LAWS: dict[str, Law] = {
    "counts only": counts,
    "counts, for 9 of 10 sets": conditional_counts,
    "Lomax beyond the highest": lomax,
    "exponential": exponential,
    "Pareto, shape shrunk to 0": shrunk,
    "DEFAULT": default,
}


# ---- tables --------------------------------------------------------------------------------------------------


def outcome(chosen: Sequence[Trial], rate: float, threshold: Callable[[Trial], float]) -> tuple[float, float, float]:
    """Observed / given rate, mean and worst machine, and share of the faults found; machines count alike."""
    by_machine: dict[str, list[tuple[float, float]]] = {}
    for trial in chosen:
        by_machine.setdefault(trial.machine, []).append(trial.alarms(threshold(trial)))
    means = np.array([np.mean(values, axis=0) for values in by_machine.values()])
    return float(means[:, 0].mean() / rate), float(means[:, 0].max() / rate), float(means[:, 1].mean())


def law_table(title: str, chosen: Sequence[Trial]) -> None:
    sizes = sorted({trial.size for trial in chosen})
    print(f"\n{title}: observed / rate, worst machine, faults found")
    print(f"{'':<26}" + "".join(f"{f'N={size}, {rate:.1%}':>18}" for size in sizes for rate in RATES))

    def row(name: str, threshold: Callable[[Trial, float], float]) -> None:
        cells = ""
        for size in sizes:
            of_size = [trial for trial in chosen if trial.size == size]
            for rate in RATES:
                mean, worst, found = outcome(of_size, rate, lambda trial, rate=rate: threshold(trial, rate))
                cells += f"{mean:7.2f} {worst:5.1f} {found:4.2f}"
        print(f"{name:<26}{cells}", flush=True)

    row("exact", lambda trial, rate: trial.exact(rate))
    for name, law in LAWS.items():
        row(name, lambda trial, rate, law=law: law(trial.scores, rate))


def left_out_table(chosen: Sequence[Trial]) -> None:
    """Share and shape of the tail are chosen by eleven machines and judged on the twelfth.

    Chosen: of those whose observed / given rate is at most `ALLOWED` at 1 % and 0.1 % and every size, the one that
    finds the most faults.
    """
    settings = [(share, shape) for share in SHARES for shape in SHAPES]
    sizes = sorted({trial.size for trial in chosen})
    machines = sorted({trial.machine for trial in chosen})
    rates = (0.01, 0.001)
    # setting, machine, size, rate, (observed / given, faults found)
    values = np.zeros((len(settings), len(machines), len(sizes), len(rates), 2))
    for s, setting in enumerate(settings):
        law = pareto(*setting)
        for m, machine in enumerate(machines):
            for n, size in enumerate(sizes):
                trials_here = [trial for trial in chosen if trial.machine == machine and trial.size == size]
                for r, rate in enumerate(rates):
                    alarm = np.mean([trial.alarms(law(trial.scores, rate)) for trial in trials_here], axis=0)
                    values[s, m, n, r] = alarm / (rate, 1.0)
    print("\nshare and shape of the tail, each machine by the eleven others")
    judged = np.zeros((len(machines), len(sizes), len(rates), 2))
    for m, machine in enumerate(machines):
        others = np.delete(values, m, axis=1).mean(axis=1)
        kept = (others[..., 0] <= ALLOWED).all(axis=(1, 2))
        best = int(np.where(kept, others[..., 1].mean(axis=(1, 2)), -1).argmax())
        judged[m] = values[best, m]
        print(f"{machine:<14} share {settings[best][0]:.1f} shape {settings[best][1]:.2f}")
    for n, size in enumerate(sizes):
        cells = "; ".join(
            f"{rate:.1%}: {ratios.mean():.2f} {ratios.max():.1f} {found.mean():.2f}"
            for rate, (ratios, found) in zip(rates, judged[:, n].transpose(1, 2, 0), strict=True)
        )
        print(f"left out, N={size:<4} {cells}")


def height_table(chosen: Sequence[Trial]) -> None:
    """Faults found by the height of the threshold: 1 = at the highest of the normal scores."""
    print("\nfaults found by the height of the threshold, p-value there, and the finest rate with power")
    for size in sorted({trial.size for trial in chosen}):
        shares, p_values, finest, observed, areas = [], [], [], [], []
        for trial in (trial for trial in chosen if trial.size == size):
            calibration = Calibration.independent(trial.scores)
            median, top = np.median(trial.scores), trial.scores[-1]
            levels = [median + height * (top - median) for height in HEIGHTS]
            shares.append([trial.alarms(level)[1] for level in levels])
            p_values.append(calibration.p_value(levels))
            finest.append(calibration.finest_with_power)
            observed.append(trial.alarms(calibration.threshold(finest[-1])))
            areas.append(trial.area())
        cells = "  ".join(
            f"{height:g}: {share:.2f} ({p:.0e})"
            for height, share, p in zip(HEIGHTS, np.mean(shares, axis=0), np.median(p_values, axis=0), strict=True)
        )
        false, faults = np.mean(observed, axis=0)
        print(
            f"N={size:<4} {cells}   finest 1 in {1 / np.median(finest):.0f}, observed / rate "
            f"{false / np.mean(finest):.2f}, faults found {faults:.2f}, AUC {np.mean(areas):.3f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="*", default=[20, 60, 200, 600])
    parser.add_argument("--detector", default="local_density")
    options = parser.parse_args()
    all_seeds = range(options.first_seed, options.first_seed + options.seeds)
    machine_trials = trials(all_seeds, options.sizes, options.detector)
    law_table(f"twelve machines, {options.seeds} splits", machine_trials)
    left_out_table(machine_trials)
    height_table(machine_trials)
    cars = toycar_trials(all_seeds, [size for size in options.sizes if size <= 233], options.detector)
    law_table("ToyCar id_04", cars)

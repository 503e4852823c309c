"""Faults among the normal recordings: areas, and false alarms and faults found at 1 % and 0.1 %, on twelve machines.

    python benchmarks/contamination.py [--seeds 3] [--first 0] [--sizes 60 600] [--shares 0 0.05 | --one]
        [--deviations 5]

Each machine: N clips at 6 dB and 10 at 0 dB are learned from, as in `alarms.py`; of the N, the given shares are
replaced by faulty clips (--one: a single clip), which are not scored later. Outliers of the held-out scores
(`harken.detection.outliers`) are left out, and the detector is fitted again without them. Cells: mean over machines of
AUC, where outliers are kept, left out, and where a person also takes out the faults among all that `fit` names;
share of new normal clips at 6 dB above the threshold / rate, on the worst machine, and share of the faults found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idct
from sklearn.metrics import roc_auc_score

from alarms import MACHINES
from harken.core.threads import one_thread
from harken.detection import create_detector
from harken.detection.calibration import Calibration
from harken.detection.crowd import apart
from harken.detection.outliers import far_scores, outliers
from harken.detection.states import find_states
from shared_folder import shared_folder

Float64 = NDArray[np.float64]
RATES = (0.01, 0.001)


@dataclass(frozen=True)
class Trial:
    """One machine and split.

    faulty: which of the learned clips are faults. scored: by the deviations of `outliers`, the held-out scores, those
    of new normal clips and of faults, and which of the learned clips are left out. named: which of them `fit` names.
    """

    faulty: NDArray[np.bool_]
    named: NDArray[np.bool_]
    scored: dict[float, tuple[Float64, Float64, Float64, NDArray[np.bool_]]]


def trials(seeds: range, size: int, share: float, detector: str, deviations: Sequence[float]) -> Iterator[Trial]:
    """share: of faults among the learned clips; below 0, a single one."""
    arrays = np.load(shared_folder() / "features" / "mimii_fan_pump_slider_feat136.npz")
    for index, machine in enumerate(MACHINES):
        key = machine.replace(" ", "__snr{}_") + "_{}"
        normal6, normal0, fault6 = (
            np.asarray(idct(arrays[key.format(snr, condition)][:, :128].astype(np.float64), norm="ortho", axis=1))
            for condition, snr in (("normal", "6"), ("normal", "0"), ("abnormal", "6"))
        )
        for seed in seeds:
            rng = np.random.default_rng([seed, index])
            order, faulty = rng.permutation(len(normal6)), rng.permutation(len(fault6))
            source = min(size, len(order) - 160)
            wrong = 1 if share < 0 else min(round(share * source), len(faulty) // 2)
            learned = np.concatenate(
                [normal6[order[: source - wrong]], fault6[faulty[:wrong]], normal0[order[source : source + 10]]]
            )
            domains = np.repeat(["source", "target"], [source, 10])
            new, faults = normal6[order[source + 10 :][:700]], fault6[faulty[wrong:]]
            scored = {}
            with one_thread():
                whole = create_detector(detector).fit(learned, domains)
                for limit in deviations:
                    left = outliers(whole.train_scores_, deviations=limit)
                    fitted = create_detector(detector).fit(learned[~left], domains[~left]) if left.any() else whole
                    scored[limit] = fitted.train_scores_, fitted.score(new), fitted.score(faults), left
                truth = np.repeat([False, True, False], [source - wrong, wrong, 10])
                named = named_clips(learned, whole.train_scores_, domains == "source")
                kept = ~(named & truth) & ~outliers(whole.train_scores_)
                fitted = create_detector(detector).fit(learned[kept], domains[kept])
                scored[LISTENED] = fitted.train_scores_, fitted.score(new), fitted.score(faults), ~kept
            yield Trial(truth, named, scored)


def named_clips(learned_ND: Float64, scores_N: Float64, source_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Clips that `fit` sets aside or names in a note: outliers, far scores, small states, and those apart."""
    states_N = find_states(learned_ND[source_N])
    named_N = far_scores(scores_N)
    named_N[source_N] |= apart(learned_ND[source_N]) | (np.bincount(states_N)[states_N] <= 0.1 * len(states_N))
    return named_N


#: outliers left out, and the faults among all that `fit` names, as by a person who listens to these
LISTENED = -1.0


def row(chosen: Sequence[Trial], deviations: float) -> str:
    """One line of the table."""
    cells, left, of_faults = [], [], []
    for trial in chosen:
        learned, normals, faults, left_out = trial.scored[deviations]
        calibration = Calibration.independent(learned)
        values = [roc_auc_score(np.repeat([0, 1], [len(normals), len(faults)]), [*normals, *faults])]
        for rate in RATES:
            threshold = calibration.threshold(rate)
            values += [float((normals > threshold).mean()) / rate, float((faults > threshold).mean())]
        cells.append(values)
        left.append(left_out.mean())
        of_faults += [left_out[trial.faulty].mean()] if trial.faulty.any() else []
    auc, *alarms = np.mean(cells, axis=0)
    worst = np.max(cells, axis=0)
    text = "  ".join(
        f"{rate:.1%}: {alarms[2 * i]:5.2f} {worst[1 + 2 * i]:5.1f} {alarms[2 * i + 1]:.2f}"
        for i, rate in enumerate(RATES)
    )
    return f"AUC {auc:.3f}  {text}  left out {np.mean(left):.2%}" + (
        f", of the faults {np.mean(of_faults):.0%}" if of_faults else ""
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--sizes", type=int, nargs="*", default=[60, 600])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.0, 0.05, 0.1])
    parser.add_argument("--one", action="store_true")
    parser.add_argument("--deviations", type=float, nargs="*", default=[5.0])
    parser.add_argument("--detector", default="local_density")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    for size in options.sizes:
        for share in [-1.0] if options.one else options.shares:
            limits = (np.inf, *options.deviations)
            chosen = list(trials(seeds, size, share, options.detector, limits))
            named = [trial.named[trial.faulty].mean() for trial in chosen if trial.faulty.any()]
            others = np.mean([trial.named[~trial.faulty].mean() for trial in chosen])
            print(f"named by fit: {np.mean(named) if named else 0:.0%} of the faults, {others:.1%} of the normal clips")
            for deviations in (*limits, LISTENED):
                label = "one fault" if share < 0 else f"{share:.0%} faults"
                left_out = "named faults, too" if deviations == LISTENED else f"outliers beyond {deviations:g}"
                print(f"N={size:<4} {label:<10} {left_out:<20} {row(chosen, deviations)}", flush=True)

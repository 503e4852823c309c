"""Steady tones: false alarms and tones found, without and with the part of the event score that is for them.

    python benchmarks/tones.py [--seeds 2] [--first-seed 1000] [--sizes 20 60 200 600] [--ids 00 02 04 06]

Clips of twelve machines as in `alarms.py`; their mean spectra stand for short-time levels, which these features lack.
A tone raises a band of a new normal clip by 4 or 8 dB, and the next one by 3 dB less. Cells: observed / given rate,
over all machines and on the worst one, and shares found: of the faults, and of the tones at 4 and 8 dB.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idct

from alarms import MACHINES
from harken.core.threads import one_thread
from harken.detection import create_detector
from harken.detection.calibration import Calibration
from harken.detection.events import unfitted
from shared_folder import shared_folder

Float64 = NDArray[np.float64]
BANDS = 128
RATES = (0.01, 0.001)


def with_steady(spectra_NB: Float64) -> Float64:
    """The spectra, and then their steady levels."""
    return np.concatenate([spectra_NB, spectra_NB - np.median(spectra_NB, axis=1, keepdims=True)], axis=1)


def with_tones(spectra_NB: Float64, rise_db: float, rng: np.random.Generator) -> Float64:
    """Each with a tone in a band of its own."""
    toned_NB, rows, bands = spectra_NB.copy(), np.arange(len(spectra_NB)), rng.integers(20, 120, len(spectra_NB))
    toned_NB[rows, bands] += rise_db
    toned_NB[rows, bands + 1] += rise_db - 3
    return toned_NB


def cells(size: int, machine: str, seed: int) -> list[list[float]]:
    """For each kind of score: of each rate, observed / given rate and three shares found."""
    arrays = np.load(shared_folder() / "features" / "mimii_fan_pump_slider_feat136.npz")
    key = machine.replace(" ", "__snr{}_") + "_{}"
    normal6, normal0, fault6, fault0 = (
        np.asarray(idct(arrays[key.format(snr, condition)][:, :BANDS].astype(np.float64), norm="ortho", axis=1))
        for condition in ("normal", "abnormal")
        for snr in ("6", "0")
    )
    rng = np.random.default_rng([seed, MACHINES.index(machine)])
    order, faulty = rng.permutation(len(normal6)), rng.permutation(len(fault6))
    source, half = min(size, len(order) - 160), len(faulty) // 2
    new = order[source + 10 :][:700]
    train = np.concatenate([normal6[order[:source]], normal0[order[source : source + 10]]])
    normals = np.concatenate([normal6[new], normal0[new]])
    weights = np.repeat(np.array([source, 10]) / (source + 10) / len(new), len(new))
    faults = np.concatenate([fault6[faulty[:half]], fault0[faulty[half:]]])
    sets = [normals, faults, with_tones(normals, 4, rng), with_tones(normals, 8, rng)]
    domains = np.repeat(["source", "target"], [source, 10])
    rows = []
    for detector, prepared in (
        (create_detector("local_density"), lambda spectra_NB: spectra_NB),
        (unfitted(BANDS), with_steady),
    ):
        with one_thread():
            detector.fit(prepared(train), domains)
            normal_N, *others = (detector.score(prepared(spectra_NB)) for spectra_NB in sets)
        calibration, row = Calibration.independent(detector.train_scores_), []
        for rate in RATES:
            threshold = calibration.threshold(rate)
            row.append(float(weights[normal_N > threshold].sum()) / rate)
            row += [float((scores_N > threshold).mean()) for scores_N in others]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[20, 60, 200, 600])
    parser.add_argument("--ids", nargs="*", default=["00", "02", "04", "06"])
    options = parser.parse_args()
    chosen = [machine for machine in MACHINES if machine[-2:] in options.ids]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for size in options.sizes:
        values = np.array([[cells(size, machine, seed) for seed in seeds] for machine in chosen]).mean(axis=1)
        for kind, name in enumerate(("without", "with")):
            mean, worst = values[:, kind].mean(axis=0), values[:, kind].max(axis=0)
            shown = "  ".join(
                f"{rate:.1%}: {mean[4 * n]:5.2f} {worst[4 * n]:5.1f} {mean[4 * n + 1]:.2f} "
                f"{mean[4 * n + 2]:.2f} {mean[4 * n + 3]:.2f}"
                for n, rate in enumerate(RATES)
            )
            print(f"N={size:<4} {name:<8} {shown}", flush=True)


if __name__ == "__main__":
    main()

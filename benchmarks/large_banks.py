"""Time and memory of a detector with many clips: fit with held-out scores, and scores of single clips.

    python benchmarks/large_banks.py [--sizes 1000 10000 50000] [--dimensions 136 384] [--detectors local_density]

Rows are the precomputed features of the folder that HARKEN_SHARED names, of three machines at three noise levels; more
than there are, with noise of a fifth of their deviation. Further dimensions are random saturating mixtures of them, and
noise. To compare with another version, run both in turn (PYTHONPATH); only ratios are meaningful on a shared machine.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from harken.core.threads import one_thread
from harken.detection import DEFAULT_DETECTOR, create_detector
from shared_folder import shared_folder


def embeddings(count: int, dimensions: int) -> NDArray[np.float32]:
    """(count, dimensions), the same for the same numbers."""
    arrays = np.load(shared_folder() / "features" / "mimii_fan_pump_slider_feat136.npz")
    real_ND = np.concatenate([arrays[name] for name in sorted(arrays.files) if name.endswith("_normal")])
    rng = np.random.default_rng(0)
    deviation_D = real_ND.std(axis=0)
    if count <= len(real_ND):
        rows_ND = real_ND[rng.permutation(len(real_ND))[:count]]
    else:
        rows_ND = real_ND[rng.integers(len(real_ND), size=count)]
        rows_ND = rows_ND + 0.2 * deviation_D * rng.normal(size=rows_ND.shape)
    more = dimensions - rows_ND.shape[1]
    if more > 0:
        mixed_ND = np.tanh((rows_ND / deviation_D) @ rng.normal(size=(rows_ND.shape[1], more)) / 12)
        mixed_ND = mixed_ND * deviation_D.mean() + 0.05 * rng.normal(size=mixed_ND.shape)
        rows_ND = np.concatenate([rows_ND, mixed_ND], axis=1)
    return rows_ND[:, :dimensions].astype(np.float32)


def measure(name: str, count: int, dimensions: int) -> None:
    """Print one row of the table. In a process of its own: memory is that of the process at its highest."""
    bank_ND = embeddings(count, dimensions)
    with one_thread():
        begun = time.process_time()
        detector = create_detector(name).fit(bank_ND)
        fitted = time.process_time() - begun
        queries_ND = bank_ND[:64] + np.float32(0.1)
        begun = time.process_time()
        for query_D in queries_ND:
            detector.score(query_D[None])
        single = (time.process_time() - begun) / len(queries_ND)
        begun = time.process_time()
        detector.score(queries_ND)
        together = (time.process_time() - begun) / len(queries_ND)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    head = f"{name:<16}{count:>7} {dimensions:>5} {fitted:9.1f}"
    print(f"{head} {peak:9.0f} {1e3 * single:9.2f} {1e3 * together:9.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[136, 384])
    parser.add_argument("--detectors", nargs="+", default=[DEFAULT_DETECTOR])
    parser.add_argument("--one", action="store_true", help="only the first of each, without a head")
    options = parser.parse_args()
    if options.one:
        measure(options.detectors[0], options.sizes[0], options.dimensions[0])
        sys.exit()
    print(f"{'detector':<16}{'clips':>7} {'D':>5} {'fit CPU-s':>9} {'MiB':>9} {'ms/clip':>9} {'of 64':>9}")
    for name, size, dimension in itertools.product(options.detectors, options.sizes, options.dimensions):
        words = ["--one", "--detectors", name, "--sizes", str(size), "--dimensions", str(dimension)]
        subprocess.run([sys.executable, __file__, *words], check=True)

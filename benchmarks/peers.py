"""CPU time and memory of fit and score: Harken beside PyOD's audio detector, same clips, same run.

    python benchmarks/peers.py [--sizes 100 1000] [--pyod PYTHON] [--qualities fast balanced]

N clips of 10 s to fit to and N others to score, simulated hum in noise. Each system is a process with one thread that
fits, scores all and ends, start-up included (Harken: `spectral`, without worker processes, with explanations). CPU
seconds and the peak of the process; on a shared machine only ratios count. PYTHON: an interpreter with pyod installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from throughput import record

HARKEN = """
import json, sys
import harken
train, test = json.loads(sys.stdin.read())
detector = harken.Detector.fit(train, workers=0)
print(sum(verdict.score for verdict in detector.score_many(test, workers=0)))
"""
PYOD = """
import json, sys, warnings
warnings.filterwarnings("ignore")
from pyod.models.embedding import EmbeddingOD
train, test = json.loads(sys.stdin.read())
model = EmbeddingOD.for_audio(quality="QUALITY")
model.fit(train)
print(sum(model.decision_function(test)))
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def cost(python: str, program: str, train: list[Path], test: list[Path]) -> tuple[float, float]:
    """CPU seconds and MiB at the peak. Raises RuntimeError with what the program says last."""
    request = json.dumps([[str(file) for file in train], [str(file) for file in test]])
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as said:
        given.write(request)
        given.seek(0)
        process = subprocess.Popen(
            [python, "-c", program],
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, **ONE_THREAD},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(said.read().strip().splitlines()[-1])
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--pyod", help="interpreter with pyod installed")
    parser.add_argument("--qualities", nargs="+", default=["fast", "balanced"])
    options = parser.parse_args()
    systems = [("harken spectral", sys.executable, HARKEN)]
    if options.pyod:
        systems += [(f"PyOD {name}", options.pyod, PYOD.replace("QUALITY", name)) for name in options.qualities]
    print(f"{'fit + score':>12} {'system':<18} {'CPU-s':>8} {'ms/clip':>9} {'MiB':>7} {'harken / it':>12}")
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"{number:05d}.wav" for number in range(2 * max(options.sizes))]
        for number, file in enumerate(files):
            record(file, number)
        for size in options.sizes:
            ours = 0.0
            for system, python, program in systems:
                try:
                    seconds, mib = cost(python, program, files[:size], files[size : 2 * size])
                except RuntimeError as error:
                    print(f"{size:>5} + {size:<4} {system:<18} {error}")
                    continue
                ours = ours or seconds
                each = f"{seconds:8.1f} {1e3 * seconds / (2 * size):9.1f} {mib:7.0f} {ours / seconds:12.2f}"
                print(f"{size:>5} + {size:<4} {system:<18} {each}", flush=True)

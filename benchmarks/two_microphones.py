"""Benefit of a far microphone: official score of simulated machines in noise, by the use of two channels.

    python benchmarks/two_microphones.py [--seeds 0 1 2]

SNR: machine to factory noise at the near microphone, -5, 0 and +5 dB. At the far one, 4 m away, the machine is
about 11 dB softer and the noise equally loud. 60 + 6 training clips and 4 x 25 test clips of 3 s per machine; encoder
`spectral` and detector `local_density` with default parameters. AUC: mean over source and target, SNRs and seeds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.audio.cancel import cancel, subtract
from harken.audio.decode import decode
from harken.audio.listen import normalised
from harken.core.threads import one_thread
from harken.data.clips import Clip, clips_from_files
from harken.detection import DEFAULT_DETECTOR, create_detector
from harken.embeddings.embedder import Embedder, make_spec
from harken.evaluation.metrics import SectionResult, official_score, section_result
from harken.plant.simulate import MACHINES, simulate

RATE = 16_000
SNRS_DB = (-5.0, 0.0, 5.0)
Step = Callable[[NDArray[np.float32]], NDArray[np.float32]]

SYSTEMS: dict[str, Step] = {
    "near only": lambda samples_CS: samples_CS[:1],
    "far only": lambda samples_CS: samples_CS[1:],
    "both, one after the other": lambda samples_CS: samples_CS,
    "cancelled (default: 512 ms, 6 dB)": partial(cancel, sample_rate=RATE),
    "cancelled, no limit": partial(cancel, sample_rate=RATE, limit_db=None),
    "cancelled, 64 ms, no limit": partial(cancel, sample_rate=RATE, window_seconds=0.064, limit_db=None),
    "cancelled, 128 ms, 3 taps": partial(cancel, sample_rate=RATE, window_seconds=0.128, taps=3),
    "cancelled, 64 ms, 7 taps": partial(cancel, sample_rate=RATE, window_seconds=0.064, taps=7),
    "subtracted": partial(subtract, sample_rate=RATE),
}


def evaluate(clips: list[Clip], vectors_ND: NDArray[np.float32]) -> SectionResult:
    """Official metrics of one machine: fitted on its training clips, evaluated on its test clips."""
    train = np.array([clip.split == "train" for clip in clips])
    domain = np.array([str(clip.domain) for clip in clips])
    anomaly = np.array([clip.condition == "anomaly" for clip in clips])
    detector = create_detector(DEFAULT_DETECTOR).fit(vectors_ND[train], domain[train].tolist(), None)
    return section_result(anomaly[~train], domain[~train] == "target", detector.score(vectors_ND[~train]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--machines", nargs="+", default=list(MACHINES), choices=list(MACHINES))
    parser.add_argument("--test", type=int, default=25, help="clips per condition and domain")
    options = parser.parse_args()
    embedder = Embedder(make_spec("spectral", sample_rate=RATE, channels=2))
    numbers: dict[tuple[str, float, int], list[SectionResult]] = defaultdict(list)
    areas: dict[tuple[str, str], list[float]] = defaultdict(list)
    step_seconds, embed_seconds = defaultdict[str, float](float), defaultdict[str, float](float)
    clip_count = 0
    for seed in options.seeds:
        for machine in options.machines:
            for snr_db in SNRS_DB:
                with tempfile.TemporaryDirectory() as folder:
                    files = simulate(
                        Path(folder), machines=[machine], train_source=60, train_target=6, supplemental=0,
                        test_per_condition=options.test, seconds=3.0, sample_rate=RATE, far_microphone=True,
                        noise_db=MACHINES[machine].snr_db - snr_db, seed=seed,
                    )  # fmt: skip
                    clips = clips_from_files(files)
                    recordings = [decode(clip.path).samples_CS for clip in clips]
                clip_count += len(clips)
                for system, step in SYSTEMS.items():
                    with one_thread():
                        begun = time.perf_counter()
                        kept = [step(samples_CS) for samples_CS in recordings]
                        between = time.perf_counter()
                        vectors_ND = np.stack([embedder.embed(normalised(samples_CS)) for samples_CS in kept])
                        step_seconds[system] += between - begun
                        embed_seconds[system] += time.perf_counter() - between
                        result = evaluate(clips, vectors_ND)
                    numbers[system, snr_db, seed].append(result)
                    areas[system, machine].append((result.auc_source + result.auc_target) / 2)
    columns = "".join(f"{snr_db:>+8.0f} dB" for snr_db in SNRS_DB) + "".join(f"{m:>9}" for m in options.machines)
    print(f"seeds {options.seeds}; official score in % by SNR, AUC by machine, milliseconds per clip of 3 s")
    print(f"{'':<34}{columns}{'step':>8}{'embed':>7}")
    for system in SYSTEMS:
        scores = [np.mean([official_score(numbers[system, snr, s]) for s in options.seeds]) for snr in SNRS_DB]
        cells = "".join(f"{100 * score:11.1f}" for score in scores)
        cells += "".join(f"{np.mean(areas[system, machine]):9.3f}" for machine in options.machines)
        cells += f"{1000 * step_seconds[system] / clip_count:8.1f}{1000 * embed_seconds[system] / clip_count:7.1f}"
        print(f"{system:<34}{cells}", flush=True)


if __name__ == "__main__":
    main()

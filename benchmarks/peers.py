"""CPU time and memory of fit and score: Harken beside other detectors of anomalous sound, same clips, same run.

    python benchmarks/peers.py [--sizes 100 1000] [--pyod PYTHON] [--qualities fast balanced] [--audio-anomaly PYTHON]
                               [--official CHECKOUT [--official-python PYTHON]]

N clips of 10 s to fit to and N others to score, simulated hum in noise. Each system is a process with one thread that
fits, scores all and ends, start-up included (Harken: `spectral`, without worker processes). CPU seconds and the peak of
the process; on a shared machine only ratios count. PYTHON: an interpreter with pyod, or audio-anomaly, installed; the
latter compares each clip with the spectrum of all normal ones together.

The last rows are the official autoencoder, 5 epochs: Harken's, and a plain loop of PyTorch as in the organisers' code,
with its DataLoader and every stacked vector in memory; both of Harken's log-mel and network. With a checkout of
nttcslab/dcase2023_task2_baseline_ae also that code itself, and `harken run baseline_ae` on the same folder of clips,
named as in the challenge: both read, train, score and write scores and pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
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
AUDIO_ANOMALY = """
import json, sys
import numpy as np
import audio_anomaly
from audio_anomaly._io import load_audio
train, test = json.loads(sys.stdin.read())
heard = [load_audio(file, None, label="audio") for file in train]
together = np.concatenate([clip.samples for clip in heard])
profile = audio_anomaly.spectral_profile(together, sample_rate=heard[0].sample_rate)
print(sum(audio_anomaly.detect(file, reference=profile).max_score for file in test))
"""
FRAMES = """
import json, sys
import numpy as np
from harken.audio.decode import decode
from harken.audio.log_mel import log_mel
train, test = json.loads(sys.stdin.read())
def frames(file):
    audio = decode(file)
    return log_mel(audio.samples_CS[0], audio.sample_rate)
"""
AUTOENCODER = (
    FRAMES
    + """
from harken.detection.reconstruction import Reconstruction
model = Reconstruction(mode="mahalanobis", epochs=5).fit([frames(file) for file in train])
print(sum(model.score([frames(file)])[0] for file in test))
"""
)
PLAIN_AUTOENCODER = (
    FRAMES
    + """
import torch
from torch.utils.data import DataLoader, TensorDataset
from harken.encoders.autoencoder import Autoencoder
torch.set_num_threads(1)
def vectors(file):
    frames_TM = frames(file)
    return np.concatenate([frames_TM[shift : len(frames_TM) - 4 + shift] for shift in range(5)], axis=1)
data = torch.from_numpy(np.concatenate([vectors(file) for file in train]))
order = torch.randperm(len(data))
held_out = len(data) // 10
batches = DataLoader(TensorDataset(data[order[held_out:]]), batch_size=256, shuffle=True)
valid = DataLoader(TensorDataset(data[order[:held_out]]), batch_size=256)
network = Autoencoder()
optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
covariance = torch.zeros(128, 128)
for epoch in range(5):
    network.train()
    for (batch,) in batches:
        optimiser.zero_grad()
        made = network(batch)
        torch.nn.functional.mse_loss(made, batch).backward()
        optimiser.step()
        if epoch == 4:
            difference = (made - batch).detach().reshape(-1, 128)
            covariance += torch.cov(difference.T) * len(batch)
    network.eval()
    with torch.no_grad():
        for (batch,) in valid:
            torch.nn.functional.mse_loss(network(batch), batch)
precision = torch.linalg.inv(covariance / len(data))
total = 0.0
with torch.no_grad():
    for file in test:
        batch = torch.from_numpy(vectors(file))
        mean = (network(batch) - batch).reshape(-1, 128).mean(dim=0)
        total += float(mean @ precision @ mean)
print(total)
"""
)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


EPOCHS = 5


def cost(command: list[str], request: str = "", folder: Path | None = None) -> tuple[float, float]:
    """CPU seconds and MiB at the peak, of the program and its own. request: its standard input. folder: it runs there.

    Raises RuntimeError with what the program says last.
    """
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as said:
        given.write(request)
        given.seek(0)
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd=folder,
            env={**os.environ, **ONE_THREAD},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(said.read().strip().splitlines()[-1])
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def published(root: Path, train: list[Path], test: list[Path]) -> Path:
    """Links to the clips in the folders and names of the challenge of 2023, machine fan; every second test clip is
    called anomalous, as both programs compute an AUC."""
    data = root / "data"
    machine = data / "dcase2023t2" / "dev_data" / "raw" / "fan"
    for part, files in (("train", train), ("test", test)):
        (machine / part).mkdir(parents=True)
        for number, file in enumerate(files):
            label = "anomaly" if part == "test" and number % 2 else "normal"
            os.link(file, machine / part / f"section_00_source_{part}_{label}_{number:04d}_noAttribute.wav")
    return data


def official(checkout: Path, python: str, data: Path, root: Path) -> tuple[float, float]:
    """Cost of the organisers' program: features, training, scores by the selective Mahalanobis distance."""
    copy = root / "checkout"
    left_out = shutil.ignore_patterns(".git", "data", "models", "results", "logs")
    shutil.copytree(checkout, copy, ignore=left_out)
    # It finds its data below the folder it runs in.
    (copy / "data").symlink_to(data)
    options = ["--dataset", "DCASE2023T2fan", "--epochs", str(EPOCHS), "--score", "MAHALA", "--use_cuda", "False"]
    # By its path here: it runs in another folder.
    return cost([os.path.abspath(shutil.which(python) or python), "train.py", "--dev", *options], folder=copy)


def whole_run(data: Path, root: Path) -> tuple[float, float]:
    """Cost of the same by `harken run`."""
    program = [str(Path(sys.executable).with_name("harken")), "run", "baseline_ae", "--workers", "1"]
    places = ["--data", str(data), "--workspace", str(root / "work")]
    return cost([*program, *places, "--set", f"stages.autoencoder.epochs={EPOCHS}"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--pyod", help="interpreter with pyod installed")
    parser.add_argument("--qualities", nargs="+", default=["fast", "balanced"])
    parser.add_argument("--audio-anomaly", help="interpreter with audio-anomaly installed")
    parser.add_argument("--official", type=Path, help="checkout of nttcslab/dcase2023_task2_baseline_ae")
    parser.add_argument("--official-python", default=sys.executable, help="interpreter with what it needs")
    options = parser.parse_args()
    programs = [("harken spectral", sys.executable, HARKEN)]
    if options.pyod:
        programs += [(f"PyOD {name}", options.pyod, PYOD.replace("QUALITY", name)) for name in options.qualities]
    if options.audio_anomaly:
        programs.append(("audio-anomaly", options.audio_anomaly, AUDIO_ANOMALY))
    programs += [
        ("harken autoencoder", sys.executable, AUTOENCODER),
        ("plain autoencoder", sys.executable, PLAIN_AUTOENCODER),
    ]
    print(f"{'fit + score':>12} {'system':<20} {'CPU-s':>8} {'ms/clip':>9} {'MiB':>7} {'spectral / it':>13}")
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"{number:05d}.wav" for number in range(2 * max(options.sizes))]
        for number, file in enumerate(files):
            record(file, number)
        for size in options.sizes:
            train, test = files[:size], files[size : 2 * size]
            request = json.dumps([[str(file) for file in train], [str(file) for file in test]])
            systems: list[tuple[str, Callable[[], tuple[float, float]]]] = [
                (name, partial(cost, [python, "-c", program], request)) for name, python, program in programs
            ]
            root = Path(place) / str(size)
            if options.official:
                data = published(root, train, test)
                systems += [
                    ("harken run baseline", partial(whole_run, data, root)),
                    ("official repository", partial(official, options.official, options.official_python, data, root)),
                ]
            ours = 0.0
            for system, measure in systems:
                try:
                    seconds, mib = measure()
                except RuntimeError as error:
                    print(f"{size:>5} + {size:<4} {system:<20} {error}")
                    continue
                ours = ours or seconds
                each = f"{seconds:8.1f} {1e3 * seconds / (2 * size):9.1f} {mib:7.0f} {ours / seconds:13.2f}"
                print(f"{size:>5} + {size:<4} {system:<20} {each}", flush=True)
            shutil.rmtree(root, ignore_errors=True)

"""ToyCar id_04: the DCASE autoencoder on log-mel frames, and every detector on their mean and deviation.

Training: the first 233 normal clips; test: 117 normal clips, 265 anomalies. python benchmarks/toycar.py [--epochs 100]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from beds import toycar
from harken.core.threads import torch_threads
from harken.detection import create_detector, list_detectors
from harken.detection.reconstruction import Reconstruction
from harken.encoders.autoencoder import Autoencoder
from harken.training.autoencoder import AutoencoderSettings, StackedFrames, train
from harken.training.settings import STACK
from shared_folder import shared_folder


def frames(shared: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(clips, frames, bands) of training and test, in the order of `beds.toycar`."""
    arrays = np.load(shared / "features" / "toycar_id04_logmel_f16.npz")
    log_mel = arrays["logmel"].astype(np.float32)
    anomalous = np.array([name.startswith("anomaly") for name in arrays["name"]])
    return log_mel[~anomalous][:233], np.concatenate([log_mel[~anomalous][233:], log_mel[anomalous]])


def row(title: str, anomaly: NDArray[np.bool_], scores: NDArray[np.float64], seconds: float, note: str = "") -> None:
    auc, pauc = roc_auc_score(anomaly, scores), roc_auc_score(anomaly, scores, max_fpr=0.1)
    print(f"{title:<40} {auc:7.4f} {pauc:7.4f} {seconds:8.2f}  {note}", flush=True)


def autoencoders(shared: Path, anomaly: NDArray[np.bool_], epochs: int) -> None:
    """All variants share one training, whose time is included in each row."""
    normal, test = frames(shared)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "training.safetensors"
        start = time.perf_counter()
        Reconstruction(epochs=epochs).fit(normal, checkpoint=checkpoint)
        both = time.perf_counter() - start
        fitted: dict[str, tuple[Reconstruction, float]] = {}
        for variant in ("published", "paper"):
            start = time.perf_counter()
            detector = Reconstruction(variant=variant, epochs=epochs).fit(normal, checkpoint=checkpoint)
            fitted[variant] = detector, time.perf_counter() - start
    training = both - fitted["published"][1]
    for mode, (variant, (detector, calibrating)) in product(("mse", "mahalanobis"), fitted.items()):
        start = time.perf_counter()
        scores = detector.scores(test)[mode]
        seconds = training + calibrating + time.perf_counter() - start
        threshold = detector.thresholds_[("mse", "mahalanobis").index(mode)]
        alarms = [f"{(scores[anomaly == odd] > threshold).mean():.1%}" for odd in (False, True)]
        row(f"autoencoder, {mode}, {variant}", anomaly, scores, seconds, f"{alarms[0]:>6} {alarms[1]:>6}")


def detectors(shared: Path) -> NDArray[np.bool_]:
    bed = toycar(shared)
    start = time.perf_counter()
    nearest = cdist(bed.test, bed.train).min(axis=1)
    row("1-NN, Euclidean, as they are", bed.anomaly, nearest, time.perf_counter() - start)
    for name in list_detectors():
        start = time.perf_counter()
        scores = create_detector(name).fit(bed.train).score(bed.test)
        row(name, bed.anomaly, scores, time.perf_counter() - start)
    return bed.anomaly


def naive_epochs(network: Autoencoder, loader: DataLoader[Any], held_out: DataLoader[Any], count: int) -> None:
    """The same training by a data loader over vectors that are all kept in memory."""
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(count):
        network.train()
        for (x_BX,) in loader:
            adam.zero_grad()
            loss = F.mse_loss(network(x_BX), x_BX)
            loss.backward()
            adam.step()
            loss.item()
        network.eval()
        with torch.inference_mode():
            for (x_BX,) in held_out:
                F.mse_loss(network(x_BX), x_BX).item()


def speed(shared: Path, rounds: int = 4, epochs: int = 2) -> None:
    """Alternating, the fastest round of each, both on one thread."""
    stacked = StackedFrames(frames(shared)[0])
    order = np.random.default_rng(0).permutation(len(stacked))
    cut = int(np.ceil(0.1 * len(order)))
    loader = DataLoader(TensorDataset(stacked.vectors(order[cut:])), 256, shuffle=True)
    held_out = DataLoader(TensorDataset(stacked.vectors(order[:cut])), 256)
    ours, naive = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        train(stacked, AutoencoderSettings(epochs=epochs))
        ours.append(time.perf_counter() - start)
        with torch_threads(1):
            network = Autoencoder(STACK * stacked.bands)
            start = time.perf_counter()
            naive_epochs(network, loader, held_out, epochs)
            naive.append(time.perf_counter() - start)
    print(
        f"\nan epoch of {len(order) - cut} vectors: {min(ours) / epochs:.2f} s; by a data loader over materialised "
        f"vectors {min(naive) / epochs:.2f} s, {min(naive) / min(ours):.2f} times as long"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    arguments = parser.parse_args()
    folder = shared_folder()
    print(f"{'ToyCar id_04':<40} {'AUC':>7} {'pAUC':>7} {'seconds':>8}  {'alarms: normal, anomalous'}")
    labels = detectors(folder)
    autoencoders(folder, labels, arguments.epochs)
    speed(folder)

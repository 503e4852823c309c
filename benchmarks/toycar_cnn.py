"""ToyCar id_04, 233 normal log-mels only: a CNN trained to classify synthetic changes, compared with 1-NN.

    python benchmarks/toycar_cnn.py [--seeds 3] [--epochs 30]

There are no attributes to classify, so the classes are changes in mel space: a shift by some bands, a tilt, a different
speed. SpecAugment, mixup, sub-cluster AdaCos; the embedding is compared with those of the unchanged training clips. AUC
of 117 normal clips against 265 anomalies, one machine, one split.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from beds import toycar
from harken.core.threads import torch_threads
from harken.detection import create_detector
from harken.training.augment.mixup import Mixup, mixed, one_hot
from harken.training.augment.random_state import rng_for
from harken.training.augment.spec_augment import SpecAugment
from harken.training.losses import create_loss
from shared_folder import shared_folder

TRAINING = 233
BATCH = 32


def changed(x_BTF: Tensor, change: int) -> Tensor:
    """(clips, frames, bands), shifted by bands (1-4), tilted (5, 6), faster or slower (7, 8); 0: unchanged."""
    if change in (1, 2, 3, 4):
        bands = (-6, -3, 3, 6)[change - 1]
        rolled = x_BTF.roll(bands, dims=2)
        # Bands shifted in repeat the edge band.
        edge = slice(0, bands) if bands > 0 else slice(bands, None)
        rolled[:, :, edge] = x_BTF[:, :, :1] if bands > 0 else x_BTF[:, :, -1:]
        return rolled
    if change in (5, 6):
        tilt_F = torch.linspace(-1, 1, x_BTF.shape[2]) * (0.6 if change == 5 else -0.6)
        return x_BTF + tilt_F
    if change in (7, 8):
        factor = 0.75 if change == 7 else 1.33
        frames = x_BTF.shape[1]
        stretched = F.interpolate(x_BTF.transpose(1, 2), scale_factor=factor, mode="linear").transpose(1, 2)
        times = -(-frames // stretched.shape[1])
        return stretched.repeat(1, times, 1)[:, :frames]
    return x_BTF


CHANGES = 9


def network(embedding: int = 64) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for out in (16, 32, 64):
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    # Pool over time, keep frequency.
    layers += [nn.AdaptiveMaxPool2d((1, 16)), nn.Flatten(), nn.Linear(64 * 16, embedding)]
    return nn.Sequential(*layers)


def compare(seeds: int, epochs: int = 30) -> None:
    car = toycar(shared_folder())
    arrays = np.load(shared_folder() / "features" / "toycar_id04_logmel_f16.npz")
    anomalous = np.array([name.startswith("anomaly") for name in arrays["name"]])
    x = torch.from_numpy(arrays["logmel"].astype(np.float32))
    x = torch.cat([x[~anomalous], x[anomalous]])
    label = np.sort(anomalous)
    train = x[:TRAINING]
    mean_F, scale = train.mean(dim=(0, 1)), train.std()
    z = (x - mean_F) / scale
    area = roc_auc_score(car.anomaly, create_detector("knn").fit(car.train).score(car.test))
    print(f"{'1-NN of mean and deviation, standardised':<44} {area:.4f}")
    area = roc_auc_score(car.anomaly, create_detector("local_density").fit(car.train).score(car.test))
    print(f"{'default detector on the same':<44} {area:.4f}")
    for title, tricks in (
        ("CNN, random weights", None),
        ("CNN, changes only", False),
        ("CNN, changes, masks, mixup", True),
    ):
        areas, accuracies, fused = [], [], []
        for seed in range(seeds):
            torch.manual_seed(seed)
            net = network()
            accuracy = fit(net, z[:TRAINING], seed, epochs, tricks) if tricks is not None else 1 / CHANGES
            net.eval()
            with torch.inference_mode():
                embedded = F.normalize(net(z[:, None]), dim=1).numpy().astype(np.float64)
            scores = {}
            for name, rows in (("cnn", embedded), ("plain", None)):
                bank, test = (car.train, car.test) if rows is None else (rows[:TRAINING], rows[TRAINING:])
                detector = create_detector("local_density" if rows is None else "knn").fit(bank)
                held_out = detector.train_scores_
                scores[name] = (detector.score(test) - held_out.mean()) / held_out.std()
            areas.append(roc_auc_score(label[TRAINING:], scores["cnn"]))
            fused.append(roc_auc_score(label[TRAINING:], scores["cnn"] + scores["plain"]))
            accuracies.append(accuracy)
        print(
            f"{title:<44} {np.mean(areas):.4f} ±{np.std(areas):.4f}  change accuracy {100 * np.mean(accuracies):.0f} %"
            f"  with the default {np.mean(fused):.4f}",
            flush=True,
        )


def fit(net: nn.Module, z: Tensor, seed: int, epochs: int, tricks: bool) -> float:
    """Train; returns the accuracy of the change in the last epoch."""
    loss = create_loss("scadacos", {"dim": 64, "classes": CHANGES, "seed": seed})
    optimiser = torch.optim.AdamW([*net.parameters(), *loss.parameters()], lr=1e-3)
    hits: list[bool] = []
    for epoch in range(epochs):
        rng = rng_for(seed, epoch, "order")
        order = np.repeat(rng.permutation(len(z)), 2)
        hits = []
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            change_B = torch.from_numpy(rng.integers(CHANGES, size=len(rows)))
            x = torch.cat([changed(z[row : row + 1], int(c)) for row, c in zip(rows, change_B, strict=True)])
            x = x.roll(int(rng.integers(x.shape[1])), dims=1)
            shares = one_hot(change_B, CHANGES)
            if tricks:
                part_B = Mixup().kept_shares(len(rows), rng)
                x, shares = mixed(x, part_B), mixed(shares, part_B)
                masks = SpecAugment(time=40, frequency=16)
                x = masks.for_batch([rng_for(seed, epoch, f"{start}.{row}") for row in range(len(rows))])(x)
            net.train()
            embedding = net(x[:, None])
            optimiser.zero_grad()
            loss(embedding, shares).backward()
            optimiser.step()
            hits += (loss.logits(embedding).argmax(dim=1) == shares.argmax(dim=1)).tolist()
    return float(np.mean(hits))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    with torch_threads(1):
        compare(options.seeds, options.epochs)

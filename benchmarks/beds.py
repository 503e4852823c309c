"""Test beds of precomputed features of real recordings: twelve machines with domain shift, and ToyCar id_04."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idct


@dataclass(frozen=True)
class Bed:
    """One machine. train, test: (clips, dimensions). domain, anomaly: `source`/`target` and label per test clip."""

    name: str
    train: NDArray[np.float64]
    train_domain: NDArray[np.str_]
    test: NDArray[np.float64]
    domain: NDArray[np.str_]
    anomaly: NDArray[np.bool_]


def machines(shared: Path, seed: int = 0) -> Iterator[Bed]:
    """MIMII fan, pump, slider, ids 00 02 04 06: 6 dB is source, 0 dB target; 600 + 10 training clips.

    Split as in the README of the features; features are the 128-band mean log-mel.
    """
    arrays = np.load(shared / "features" / "mimii_fan_pump_slider_feat136.npz")
    rng = np.random.default_rng(seed)
    for machine in ("fan", "pump", "slider"):
        for number in ("00", "02", "04", "06"):

            def bands(
                snr: str, condition: str, key: str = f"{machine}__snr{{}}_id_{number}_{{}}"
            ) -> NDArray[np.float64]:
                cepstra = arrays[key.format(snr, condition)][:, :128].astype(np.float64)
                return np.asarray(idct(cepstra, norm="ortho", axis=1))

            normal6, normal0, anomaly6, anomaly0 = (
                bands(snr, condition) for condition in ("normal", "abnormal") for snr in ("6", "0")
            )
            order = rng.permutation(len(normal6))
            source = min(600, len(order) - 160)
            test = order[source + 10 :]
            half = len(test) // 2
            anomalous = rng.permutation(len(anomaly6))
            anomalous_half = len(anomalous) // 2
            groups = [
                normal6[test[:half]],
                normal0[test[half:]],
                anomaly6[anomalous[:anomalous_half]],
                anomaly0[anomalous[anomalous_half:]],
            ]
            sizes = [len(group) for group in groups]
            yield Bed(
                f"{machine} id_{number}",
                np.concatenate([normal6[order[:source]], normal0[order[source : source + 10]]]),
                np.repeat(["source", "target"], [source, 10]),
                np.concatenate(groups),
                np.repeat(["source", "target", "source", "target"], sizes),
                np.repeat([False, False, True, True], sizes),
            )


def toycar(shared: Path) -> Bed:
    """ToyCar id_04: mean and deviation over time of the log-mel; the first 233 normal clips are for training."""
    arrays = np.load(shared / "features" / "toycar_id04_logmel_f16.npz")
    log_mel = arrays["logmel"].astype(np.float64)
    features = np.concatenate([log_mel.mean(axis=1), log_mel.std(axis=1)], axis=1)
    anomalous = np.array([name.startswith("anomaly") for name in arrays["name"]])
    normal = features[~anomalous]
    test = np.concatenate([normal[233:], features[anomalous]])
    return Bed(
        "ToyCar id_04",
        normal[:233],
        np.full(233, "source"),
        test,
        np.full(len(test), "source"),
        np.arange(len(test)) >= len(normal) - 233,
    )

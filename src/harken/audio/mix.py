"""Mixing noise at a given signal-to-noise ratio."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from harken.audio.shape import fit_length

Float32 = NDArray[np.float32]


def _in_order(snr_db: tuple[float, float]) -> tuple[float, float]:
    if not (np.isfinite(snr_db).all() and snr_db[0] <= snr_db[1]):
        raise ValueError("two finite numbers, the lower one first")
    return snr_db


#: least and largest signal-to-noise ratio in dB, as a setting
SnrRange = Annotated[tuple[float, float], AfterValidator(_in_order)]


def power(samples: Float32) -> float:
    """Mean square over all channels and samples."""
    return float(np.mean(np.square(samples, dtype=np.float64)))


def mix_at_snr(signal_CS: Float32, noise_CS: Float32, snr_db: float, *, start: int = 0) -> Float32:
    """signal + g * noise, with g such that 10 log10(power(signal) / power(g * noise)) = snr_db.

    Shorter noise is tiled, longer noise is cropped from sample `start` on; its power is that of the
    part used. All channels have the same gain, which keeps level differences between microphones.
    Raises ValueError when either side is silent (the ratio is then undefined) or channel counts differ.
    """
    if signal_CS.shape[0] != noise_CS.shape[0]:
        raise ValueError(f"signal has {signal_CS.shape[0]} channels, noise {noise_CS.shape[0]}")
    noise_CS = fit_length(noise_CS, signal_CS.shape[1], short="tile", start=start)
    signal_power, noise_power = power(signal_CS), power(noise_CS)
    if signal_power == 0 or noise_power == 0:
        raise ValueError("signal or noise is silent: the signal-to-noise ratio is undefined")
    gain = np.sqrt(signal_power / noise_power * 10.0 ** (-snr_db / 10.0))
    return (signal_CS + np.float32(gain) * noise_CS).astype(np.float32)

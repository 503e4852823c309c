"""Factory noise: coloured background noise, distant machines, occasional clanks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harken.plant.signals import (
    Float,
    Mode,
    Rng,
    at_level,
    decibels,
    harmonics,
    impulses,
    noise,
    periodic,
    poisson_times,
    revolutions,
    ring,
    slope,
    swell,
)


@dataclass(frozen=True)
class Background:
    """Noise conditions at one location in the factory.

    slope_db: spectral roll-off in dB per octave above `low_hz`. hums_hz: shaft speeds of distant machines.
    hum_db: their level relative to the background noise. clanks: mean number per second.
    """

    slope_db: float
    low_hz: float
    hums_hz: tuple[float, ...]
    hum_db: float
    clanks: float


BACKGROUNDS = {
    "A": Background(slope_db=4.5, low_hz=120.0, hums_hz=(24.7, 49.3), hum_db=-6.0, clanks=0.08),
    "B": Background(slope_db=4.0, low_hz=180.0, hums_hz=(16.4, 49.6), hum_db=-5.0, clanks=0.12),
}
#: background of clips whose attributes name none
DEFAULT_BACKGROUND = "A"
_STEEL = (Mode(1270.0, 0.004), Mode(2140.0, 0.004, 0.7), Mode(3480.0, 0.005, 0.5))


def factory_noise(background: Background, samples: int, rate: int, rng: Rng) -> Float:
    """(S,) noise of about unit power; slope and hum levels vary slightly from clip to clip."""
    tilt = background.slope_db + 0.25 * rng.standard_normal()
    sum_S = noise(samples, rate, rng, slope(tilt, low_hz=background.low_hz))
    sum_S *= swell(0.08, samples, rate, rng)
    for hum_hz in background.hums_hz:
        angle_S = revolutions(hum_hz * (1.0 + 0.002 * rng.standard_normal()), samples, rate, rng)
        amplitude_K = np.append(0.0, 1.0 / np.arange(1, 13) ** 0.8)
        level_db = background.hum_db + rng.normal(0.0, 1.0)
        sum_S += at_level(periodic(angle_S, harmonics(amplitude_K, rng)), level_db)
    time_N = poisson_times(background.clanks, samples / rate, rng)
    if len(time_N):
        strength_N = decibels(-12.0) * rng.exponential(1.0, len(time_N)) * np.sqrt(rate)
        sum_S += ring(impulses(time_N, strength_N, samples, rate), _STEEL, rate)
    return sum_S

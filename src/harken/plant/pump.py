"""Centrifugal pump: vane-pass tones, flow noise, cavitation at low inlet pressure."""

from __future__ import annotations

import numpy as np

from harken.plant.machine import Machine, OperatingRun, conditions
from harken.plant.signals import (
    Float,
    Rng,
    add_blade_passes,
    at_level,
    band,
    harmonics,
    impulses,
    modes,
    noise,
    periodic,
    poisson_times,
    ring,
    slope,
    swell,
)

VANES = 6
#: shaft speed in Hz at zero flow, and increase per litre per second: the drive follows the demand
IDLE_HZ, HZ_PER_LITRE = 22.0, 0.6


def sound(run: OperatingRun, unit: Rng, rng: Rng) -> Float:
    """See `Machine.sound`.

    cavitation: vapour bubbles collapse in the impeller: dense broadband crackle, densest at each vane passage
        (Brennen, Hydrodynamics of Pumps, 1994).
    leak: a jet through the shaft seal causes a steady hiss.
    clogging: debris on one vane: 1x, sidebands of the vane-pass tones, recirculation rumble.
    """
    speed_hz = (IDLE_HZ + HZ_PER_LITRE * run.value("flow")) * (1.0 + 0.004 * rng.standard_normal())
    angle_S = run.shaft(speed_hz, rng)
    cavitation = run.fault_gain("cavitation", -22.0, 8.0)
    leak = run.fault_gain("leak", -24.0, 4.0)
    clog = run.fault_gain("clogging", -18.0, 12.0)

    amplitude_K = np.append(0.0, 0.06 * unit.uniform(0.3, 1.0, 5 * VANES + 1))
    add_blade_passes(amplitude_K, VANES, passes=5, weakest=0.6, modulation=clog, unit=unit, rng=rng)
    amplitude_K[1] += 0.3 + 0.8 * clog
    tones_S = at_level(periodic(angle_S, harmonics(amplitude_K, unit)), rng.normal(-1.0, 0.8))
    flow_S = noise(run.samples, run.rate, rng, slope(4.0 + 0.3 * rng.standard_normal(), low_hz=120.0))
    sum_S = tones_S + flow_S * swell(0.06, run.samples, run.rate, rng)
    if clog:
        rumble_S = noise(run.samples, run.rate, rng, band(2.0 * speed_hz, 0.7))
        sum_S += 0.8 * clog * rumble_S * (1.0 + 0.6 * np.cos(2 * np.pi * angle_S))
    if cavitation:
        time_N = poisson_times(1500.0, run.seconds, rng)
        vane_N = np.interp(time_N, np.arange(run.samples) / run.rate, angle_S) * VANES
        strength_N = rng.exponential(1.0, len(time_N)) * (1.0 + 0.7 * np.cos(2 * np.pi * vane_N))
        strength_N *= rng.choice((-1.0, 1.0), len(time_N))
        crackle_S = impulses(time_N, strength_N, run.samples, run.rate)
        casing = modes((1900.0, 3300.0, 5200.0), 0.12, unit)
        sum_S += cavitation * at_level(ring(crackle_S, casing, run.rate), 0.0)
    if leak:
        sum_S += leak * noise(run.samples, run.rate, rng, band(4500.0, 0.6))
    return sum_S


PUMP = Machine(
    name="pump",
    source=conditions(flow="10 15 20", bkg="A"),
    target=conditions(flow="10 20", bkg="B"),
    faults=("cavitation", "leak", "clogging"),
    sound=sound,
    snr_db=8.0,
    supplemental="noise",
)

"""Rolling-element bearing on a loaded shaft.

A spall causes an impulse whenever a rolling element passes it; each impulse excites the resonances of the housing.
Elements slip, which makes the intervals random by one or two per cent and the sound only pseudo-periodic: its envelope
is more informative than its spectrum (Randall & Antoni, "Rolling element bearing diagnostics - a tutorial", MSSP 25,
2011).
"""

from __future__ import annotations

import numpy as np

from harken.plant.machine import Machine, OperatingRun, conditions
from harken.plant.signals import (
    Float,
    Rng,
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

#: geometry: rolling elements, ratio of their diameter to the pitch diameter; contact angle 0
ELEMENTS, DIAMETER_RATIO = 9, 0.22
#: fault orders: impulses per shaft revolution from a spall on the outer (fixed) and inner (rotating) race
BPFO = ELEMENTS / 2 * (1 - DIAMETER_RATIO)
BPFI = ELEMENTS / 2 * (1 + DIAMETER_RATIO)
#: relative standard deviation of the interval between two impulses
SLIP = 0.01


def spall_shocks(angle_S: Float, order: float, rate: int, rng: Rng) -> tuple[Float, Float]:
    """Times in s (N,) and shaft angles in revolutions (N,) of a spall that is passed `order` times per revolution."""
    count = int(1.1 * (angle_S[-1] - angle_S[0]) * order) + 2
    # Each slip shifts all later impulses: independent increments (Antoni & Randall, J. Vib. Acoust. 125, 2003).
    interval_N = (1.0 + SLIP * rng.standard_normal(count)) / order
    shock_N = angle_S[0] - rng.uniform() / order + np.cumsum(interval_N)
    shock_N = shock_N[(shock_N > angle_S[0]) & (shock_N < angle_S[-1])]
    return np.interp(shock_N, angle_S, np.arange(len(angle_S)) / rate), shock_N


def sound(run: OperatingRun, unit: Rng, rng: Rng) -> Float:
    """See `Machine.sound`.

    outer race: impulses at BPFO of equal strength, as the spall stays in the load zone.
    inner race: impulses at BPFI, modulated once per revolution as the spall passes through the load zone.
    dirty grease: hard particles cause many small impulses at random times.
    """
    speed_hz = run.value("vel") * (1.0 + 0.004 * rng.standard_normal())
    angle_S = run.shaft(speed_hz, rng, slack=0.002)
    outer = run.fault_gain("outer race", -24.0, 2.0)
    inner = run.fault_gain("inner race", -24.0, 2.0)
    dirt = run.fault_gain("dirty grease", -26.0, 0.0)

    amplitude_K = np.append(0.0, unit.uniform(0.5, 1.0, 10) / np.arange(1, 11) ** 0.7)
    amplitude_K[1:] *= 1.0 + 0.1 * rng.standard_normal(10)
    shaft_S = at_level(periodic(angle_S, harmonics(amplitude_K, unit)), rng.normal(-2.0, 0.8))

    housing = modes((1400.0, 2600.0, 4300.0), 0.03, unit)
    rolling_S = noise(run.samples, run.rate, rng, slope(4.0 + 0.3 * rng.standard_normal(), low_hz=150.0))
    contact_S = noise(run.samples, run.rate, rng, band(2600.0, 0.8))
    contact_S *= swell(0.1, run.samples, run.rate, rng)
    # Healthy rolling contacts produce some friction and ticking too.
    tick_N = poisson_times(60.0, run.seconds, rng)
    ticks_S = impulses(tick_N, rng.exponential(1.0, len(tick_N)), run.samples, run.rate)
    sum_S: Float = shaft_S + 0.8 * rolling_S + 0.15 * contact_S
    sum_S += at_level(ring(ticks_S, housing, run.rate), -20.0)

    if outer or inner:
        time_N, at_N = spall_shocks(angle_S, BPFO if outer else BPFI, run.rate, rng)
        strength_N = 1.0 + 0.2 * rng.standard_normal(len(time_N))
        if inner:
            # Load zone of about a third of a revolution (Stribeck), never fully unloaded.
            strength_N *= 0.15 + np.maximum(np.cos(2 * np.pi * at_N), 0.0) ** 1.5
        shocks_S = impulses(time_N, strength_N, run.samples, run.rate)
        sum_S += (outer + inner) * at_level(ring(shocks_S, housing, run.rate), 0.0)
    if dirt:
        time_N = poisson_times(25.0, run.seconds, rng)
        shocks_S = impulses(time_N, rng.exponential(1.0, len(time_N)), run.samples, run.rate)
        sum_S += dirt * at_level(ring(shocks_S, housing, run.rate), 0.0)
    return sum_S


BEARING = Machine(
    name="bearing",
    source=conditions(vel="16 20 24", mic="1"),
    target=conditions(vel="16 20 24", mic="2"),
    faults=("outer race", "inner race", "dirty grease"),
    sound=sound,
    snr_db=8.0,
    supplemental="machine",
)

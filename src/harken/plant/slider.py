"""Linear slider: a carriage that reciprocates on a screw-driven rail.

Friction noise follows the carriage speed, with higher frequencies at higher speed; the lead screw produces a tone at
speed / lead; the carriage knocks when it reverses.
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
    ring,
    slope,
)

STROKE_MM, LEAD_MM, DWELL_S = 120.0, 2.0, 0.04
#: stick-slip: releases per second at a speed of 100 mm/s
RELEASES = 12.0


def stroke_times(speed_mm_s: float, acceleration_m_s2: float) -> tuple[float, float]:
    """Duration in s of one stroke (ramp, travel, ramp, dwell) and of its ramp; trapezoidal speed profile."""
    ramp_s = speed_mm_s / (1000.0 * acceleration_m_s2)
    return STROKE_MM / speed_mm_s + ramp_s + DWELL_S, ramp_s


def sound(run: OperatingRun, unit: Rng, rng: Rng) -> Float:
    """See `Machine.sound`.

    dry rail: more friction noise, at higher frequencies.
    stick-slip: the carriage sticks and releases: trains of impulses while it moves (Bowden & Leben 1939).
    rail damage: a knock whenever the carriage passes the dent, in both directions.
    """
    speed_mm_s = run.value("vel") * (1.0 + 0.005 * rng.standard_normal())
    stroke_s, ramp_s = stroke_times(speed_mm_s, run.value("ac"))
    dry = run.fault_gain("dry rail", -20.0, 10.0)
    stick = run.fault_gain("stick-slip", -18.0, 12.0)
    dent = run.fault_gain("rail damage", -14.0, 16.0)

    # One revolution of `phase` is one stroke.
    phase_S = run.shaft(1.0 / stroke_s, rng, slack=0.002)
    within_S = phase_S % 1.0 * stroke_s
    travel_s = stroke_s - DWELL_S
    # Carriage speed relative to the setpoint.
    motion_S = np.clip(np.minimum(within_S, travel_s - within_S) / ramp_s, 0.0, 1.0).astype(np.float32)
    frame = modes((700.0, 1500.0, 2900.0), 0.03, unit)

    tilt = 5.0 + 0.3 * rng.standard_normal()
    # Asperities of a given size sound at a frequency proportional to the speed.
    friction_S = noise(run.samples, run.rate, rng, slope(tilt, low_hz=speed_mm_s)) * motion_S
    turns_S = np.cumsum(motion_S, dtype=np.float64) * speed_mm_s / LEAD_MM / run.rate
    amplitude_K = np.append(0.0, unit.uniform(0.5, 1.0, 6) / np.arange(1, 7))
    amplitude_K[1:] *= 1.0 + 0.1 * rng.standard_normal(6)
    screw_S = motion_S * periodic(turns_S, harmonics(amplitude_K, unit))
    sum_S = at_level(friction_S, 0.0) + at_level(screw_S, rng.normal(-4.0, 0.8))
    sum_S += 0.25 * noise(run.samples, run.rate, rng, slope(6.0, low_hz=100.0))  # idle noise of the drive

    def knocks(position: float, deviation: float) -> Float:
        """(S,) impulses once per stroke at a phase in 0..1."""
        turn_N = np.arange(np.ceil(phase_S[0] - position), np.floor(phase_S[-1] - position) + 1) + position
        time_N = np.interp(turn_N, phase_S, np.arange(run.samples) / run.rate)
        return impulses(time_N, 1.0 + deviation * rng.standard_normal(len(time_N)), run.samples, run.rate)

    # Knocks have a fixed strength: with fewer per clip, each is not louder.
    strength = np.sqrt(run.rate * stroke_s)
    sum_S += 0.6 * strength * ring(knocks(travel_s / stroke_s, 0.15), frame, run.rate)
    if dry:
        squeal_S = noise(run.samples, run.rate, rng, band(3000.0 * speed_mm_s / 400.0, 0.6))
        sum_S += dry * squeal_S * motion_S
    if stick:
        slip_S = np.cumsum(motion_S, dtype=np.float64) / run.rate * RELEASES * speed_mm_s / 100.0
        releases = int(slip_S[-1])
        release_N = np.arange(releases) + 0.5 + 0.25 * rng.standard_normal(releases)
        time_N = np.interp(release_N, slip_S, np.arange(run.samples) / run.rate)
        force_S = impulses(time_N, 1.0 + 0.4 * rng.standard_normal(len(time_N)), run.samples, run.rate)
        sum_S += stick * at_level(ring(force_S, frame, run.rate), 0.0)
    if dent:
        sum_S += 0.5 * dent * strength * ring(knocks(0.35 * travel_s / stroke_s, 0.2), frame, run.rate)
    return sum_S


SLIDER = Machine(
    name="slider",
    source=conditions(vel="400 500", ac="4 6"),
    target=conditions(vel="380 520", ac="5"),
    faults=("dry rail", "stick-slip", "rail damage"),
    sound=sound,
    snr_db=8.0,
    level_db=-30.0,
    supplemental="noise",
)

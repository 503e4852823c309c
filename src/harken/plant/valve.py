"""Solenoid valve of a compressed-air line, switched in a pattern.

Opening: the plunger hits its stop, air hisses while the valve is open, the coil hums at twice the mains frequency.
Closing: the plunger hits its seat, at a lower level.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from harken.plant.machine import Machine, OperatingRun, conditions
from harken.plant.signals import (
    Float,
    Rng,
    band,
    decibels,
    harmonics,
    impulses,
    modes,
    noise,
    periodic,
    ring,
    slope,
)

MAINS_HZ = 50.0
#: pattern -> seconds open, closed, open, closed ...
PATTERNS = {
    "00": (0.10, 0.30),
    "01": (0.20, 0.25),
    "02": (0.08, 0.12, 0.08, 0.35),
    "03": (0.14, 0.22),
    "04": (0.12, 0.20, 0.12, 0.45),
}
#: time constant in s of the air flow after a stroke
FLOW_S = 0.012
#: delay in s of the impact of the plunger at full severity of a slow stroke
LATEST_S = 0.03


def strokes(pattern: str, seconds: float, rng: Rng) -> tuple[Float, Float]:
    """Times in s of the openings and closings that cover a clip, starting at a random point of the pattern."""
    steps_S = np.tile(PATTERNS[pattern], int(np.ceil((seconds + 2.0) / sum(PATTERNS[pattern]))))
    steps_S = steps_S + 0.002 * rng.standard_normal(len(steps_S))  # the controller's cycle time
    edge_S = np.append(0.0, np.cumsum(steps_S)) - rng.uniform(0.0, sum(PATTERNS[pattern]))
    return edge_S[0::2], edge_S[1::2]


def flow(open_N: Float, close_N: Float, samples: int, rate: int) -> Float:
    """(S,) air flow relative to full flow, 0 to 1: first-order rise and fall after each stroke."""
    counts = []
    for edge_N in (open_N, close_N):
        index_N = np.clip(np.ceil(edge_N * rate), 0, samples).astype(np.intp)
        counts.append(np.bincount(index_N, minlength=samples + 1)[:samples].cumsum())
    gate_S = (counts[0] - counts[1]).astype(np.float64)
    pole = np.exp(-1.0 / (FLOW_S * rate))
    flow_S, _ = lfilter([1.0 - pole], [1.0, -pole], gate_S, zi=[pole * gate_S[0]])
    return np.asarray(flow_S.astype(np.float32))


def sound(run: OperatingRun, unit: Rng, rng: Rng) -> Float:
    """See `Machine.sound`.

    slow stroke: a sticking plunger hits late and with less force, and bounces.
    leak: air passes the closed seat: a continuous hiss.
    loose coil: the core rattles against its yoke at twice the mains frequency while the coil is energised.
    """
    open_N, close_N = strokes(run.operation["pat"], run.seconds, rng)
    slow = run.fault_gain("slow stroke", -14.0, 0.0)
    leak = run.fault_gain("leak", -28.0, -2.0)
    rattle = run.fault_gain("loose coil", -14.0, 14.0)
    body = modes((900.0, 2100.0, 3700.0, 5600.0), 0.04, unit)

    flow_S = flow(open_N, close_N, run.samples, run.rate)
    hiss_S = noise(run.samples, run.rate, rng, band(4000.0 * (1.0 + 0.03 * rng.standard_normal()), 0.9))
    sum_S = 0.8 * hiss_S * flow_S * decibels(rng.normal(0.0, 0.8))

    time_S = np.arange(run.samples) / run.rate
    amplitude_K = np.append(0.0, unit.uniform(0.4, 1.0, 5) / np.arange(1, 6))
    # The coil's force is proportional to the square of the current, hence twice the mains frequency.
    buzz_S = periodic(rng.uniform() + 2.0 * MAINS_HZ * time_S, harmonics(amplitude_K, unit))
    sum_S += 0.3 * flow_S * buzz_S * decibels(rng.normal(0.0, 0.8))
    sum_S += 0.12 * noise(run.samples, run.rate, rng, slope(4.0, low_hz=100.0))  # flow noise of the supply line

    hit_N = np.concatenate([open_N, close_N]) + LATEST_S * slow
    strength_N = np.concatenate([np.full(len(open_N), 1.0), np.full(len(close_N), 0.6)])
    strength_N = strength_N * (1.0 + 0.08 * rng.standard_normal(len(hit_N))) * np.sqrt(0.2 * run.rate)
    force_S = impulses(hit_N, (1.0 - 0.85 * slow) * strength_N, run.samples, run.rate)
    for bounce, share in enumerate((0.5, 0.3, 0.15), start=1):
        late_N = hit_N + bounce * 0.018 * (1.0 + 0.2 * rng.standard_normal(len(hit_N)))
        force_S += impulses(late_N, slow * share * strength_N, run.samples, run.rate)
    sum_S += ring(force_S, body, run.rate)
    if leak:
        sum_S += 0.6 * leak * noise(run.samples, run.rate, rng, band(5200.0, 0.5))
    if rattle:
        beat_N = np.arange(0.0, run.seconds, 0.5 / MAINS_HZ)
        beat_N = beat_N + 0.0005 * rng.standard_normal(len(beat_N))
        on_N = np.interp(beat_N, time_S, flow_S)
        shocks_S = impulses(beat_N, on_N * rng.uniform(0.4, 1.0, len(beat_N)), run.samples, run.rate)
        sum_S += rattle * np.sqrt(0.5 / MAINS_HZ * run.rate) * ring(shocks_S, body[:2], run.rate)
    return sum_S


VALVE = Machine(
    name="valve",
    source=conditions(pat="00 01 02"),
    target=conditions(pat="03 04"),
    faults=("slow stroke", "leak", "loose coil"),
    sound=sound,
    snr_db=10.0,
    level_db=-33.0,
    supplemental="machine",
)

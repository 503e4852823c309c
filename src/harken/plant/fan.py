"""Axial fan: blade-pass tones and turbulence noise.

Tones are at multiples of blades x shaft speed; the broadband component falls off above a corner frequency that is
proportional to the speed, at a constant Strouhal number (Neise, "Review of fan noise generation mechanisms", 1992).
"""

from __future__ import annotations

import numpy as np

from harken.plant.machine import Machine, OperatingRun, conditions
from harken.plant.signals import (
    Float,
    Rng,
    add_blade_passes,
    at_level,
    bump,
    harmonics,
    noise,
    periodic,
    slope,
    swell,
    table_angles,
)

BLADES = 7
#: shaft speed in Hz per volt of supply
HZ_PER_VOLT = 1.05


def sound(run: OperatingRun, unit: Rng, rng: Rng) -> Float:
    """See `Machine.sound`.

    unbalance: the rotor's centre of mass is off its axis: the 1x order rises, blade-pass tones get sidebands at
        1x, the turbulence is modulated once per revolution.
    chipped blade: one blade differs: all shaft orders appear, and turbulence bursts once per revolution.
    blocked inlet: rotating stall: a rumble below the blade-pass frequency, modulated at 0.45 x shaft speed; less flow.
    """
    volts = run.value("spd")
    speed_hz = HZ_PER_VOLT * volts * (1.0 + 0.004 * rng.standard_normal())
    angle_S = run.shaft(speed_hz, rng)
    unbalance = run.fault_gain("unbalance", -16.0, 12.0)
    chip = run.fault_gain("chipped blade", -16.0, 10.0)
    stall = run.fault_gain("blocked inlet", -16.0, 10.0)

    order_K = np.arange(6 * BLADES + 2)
    # Blade spacing is never perfectly even: weak lines at every order.
    amplitude_K = 0.02 * unit.uniform(0.3, 1.0, len(order_K)) + chip * 0.35 / np.sqrt(1.0 + order_K)
    add_blade_passes(amplitude_K, BLADES, passes=6, weakest=0.7, modulation=unbalance, unit=unit, rng=rng)
    amplitude_K[1] += 0.15 + 1.5 * unbalance
    tones_S = at_level(periodic(angle_S, harmonics(amplitude_K, unit)), rng.normal(-3.0, 1.0))

    tilt = 5.0 + 0.3 * rng.standard_normal()
    flow_S = noise(run.samples, run.rate, rng, slope(tilt, low_hz=5.0 * speed_hz))
    flow_S *= swell(0.05, run.samples, run.rate, rng)
    once_P = unbalance * 0.5 * np.sin(2 * np.pi * table_angles(4))
    flow_S *= 1.0 + periodic(angle_S, once_P)
    if chip:
        flow_S *= 1.0 + 2.0 * chip * periodic(angle_S, bump(table_angles(16), 0.3, 0.05))
    if stall:
        rumble_S = noise(run.samples, run.rate, rng, slope(9.0, low_hz=1.2 * speed_hz))
        cell_S = 1.0 + 0.8 * periodic(0.45 * angle_S, np.sin(2 * np.pi * table_angles(1)))
        flow_S = flow_S / np.sqrt(1.0 + stall) + 1.5 * stall * cell_S * rumble_S
    return tones_S + flow_S


FAN = Machine(
    name="fan",
    source=conditions(spd="24V 26V 28V"),
    target=conditions(spd="25V 29V"),
    faults=("unbalance", "chipped blade", "blocked inlet"),
    sound=sound,
    snr_db=8.0,
    supplemental="machine",
)

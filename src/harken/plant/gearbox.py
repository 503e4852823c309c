"""One-stage gearbox: gear-mesh tones with sidebands of both shafts.

The mesh frequency is teeth x shaft speed. Load deflects the teeth and raises the mesh tones; run-out of either
wheel modulates them, which causes sidebands at multiples of the shaft speed (Randall, "A new method of
modeling gear faults", 1982). A cracked tooth is less stiff: once per revolution the mesh tone dips and lags, and
the impulse excites the casing (McFadden, "Detecting fatigue cracks in gears by amplitude and phase demodulation
of the meshing vibration", 1986).
"""

from __future__ import annotations

import numpy as np

from harken.plant.machine import Machine, OperatingRun, conditions
from harken.plant.signals import (
    Float,
    Rng,
    at_level,
    band,
    bump,
    harmonics,
    modes,
    noise,
    periodic,
    ring,
    slope,
    swell,
    table_angles,
)

PINION_TEETH, WHEEL_TEETH = 23, 61
HZ_PER_VOLT = 0.9


def mesh_table(teeth: int, amplitude_M: Float, phase_M: Float, run_out: float, crack: float) -> Float:
    """One revolution (P,) of the mesh tones, relative to one wheel.

    run_out: depth of the amplitude modulation by an eccentric wheel. crack: depth of the dip while the weak
    tooth carries the load; the first mesh tone then lags by twice that value in radians.
    """
    angle_P = table_angles(teeth * len(amplitude_M))
    weak_P = bump(angle_P, 0.5, 0.7 / teeth)
    lag_P = 2.0 * crack * weak_P
    mesh_P = 2 * np.pi * teeth * angle_P - lag_P
    # Mesh harmonics as powers of the fundamental.
    polynomial_M = np.append(0.0, amplitude_M * np.exp(1j * phase_M))
    wave_P = np.polynomial.polynomial.polyval(np.exp(1j * mesh_P), polynomial_M).real
    wave_P *= 1.0 + run_out * np.cos(2 * np.pi * angle_P)
    wave_P *= 1.0 - min(crack, 0.9) * weak_P
    return np.asarray(wave_P)


def sound(run: OperatingRun, unit: Rng, rng: Rng) -> Float:
    """See `Machine.sound`.

    cracked tooth: pinion sidebands around every mesh tone and an impulse once per revolution.
    worn teeth: the profile is no longer an involute: higher mesh harmonics, more friction noise.
    dry gears: no oil film: scuffing noise at high frequencies, modulated by the mesh.
    """
    speed_hz = HZ_PER_VOLT * run.value("volt") * (1.0 + 0.004 * rng.standard_normal())
    load = run.value("wt") / 100.0
    angle_S = run.shaft(speed_hz, rng)
    wheel_S = angle_S * (PINION_TEETH / WHEEL_TEETH)
    crack = run.fault_gain("cracked tooth", -20.0, 5.0)
    wear = run.fault_gain("worn teeth", -18.0, 10.0)
    scuff = run.fault_gain("dry gears", -24.0, 4.0)

    orders = np.arange(1, 7)
    amplitude_M = unit.uniform(0.6, 1.2, len(orders)) / orders**1.3
    phase_M = unit.uniform(0, 2 * np.pi, len(orders))
    amplitude_M *= (1.0 + 0.6 * load) * (1.0 + 0.1 * rng.standard_normal(len(orders)))
    amplitude_M[1:] += 0.5 * wear / np.sqrt(orders[1:])
    pinion_P = mesh_table(PINION_TEETH, amplitude_M, phase_M, unit.uniform(0.08, 0.15), crack)
    wheel_P = mesh_table(WHEEL_TEETH, 0.4 * amplitude_M, phase_M, unit.uniform(0.1, 0.2), 0.0)
    mesh_S = periodic(angle_S, pinion_P) + periodic(wheel_S, wheel_P)
    shaft_S = periodic(angle_S, harmonics(np.array([0.0, 0.3, 0.15, 0.08]), unit))
    sum_S = at_level(mesh_S + shaft_S, rng.normal(0.0, 0.7) + 2.0 * load)

    casing = modes((950.0, 1800.0, 3100.0), 0.02, unit)
    rolling_S = noise(run.samples, run.rate, rng, slope(4.0 + 0.3 * rng.standard_normal(), low_hz=300.0))
    sum_S += (0.5 + 0.8 * wear) * rolling_S * swell(0.08, run.samples, run.rate, rng)
    if crack:
        # The impulse has a fixed width in angle: it is sharper at higher speed.
        shock_S = periodic(angle_S, bump(table_angles(256), 0.5, 0.002)) * speed_hz
        sum_S += at_level(ring(np.diff(shock_S, prepend=shock_S[0]), casing, run.rate), -6.0) * 2.0 * crack
    if scuff:
        hiss_S = noise(run.samples, run.rate, rng, band(3500.0, 0.7))
        sum_S += scuff * hiss_S * (1.0 + 0.5 * np.cos(2 * np.pi * PINION_TEETH * angle_S))
    return sum_S


GEARBOX = Machine(
    name="gearbox",
    source=conditions(volt="20 24", wt="0 50"),
    target=conditions(volt="20 24", wt="100"),
    faults=("cracked tooth", "worn teeth", "dry gears"),
    sound=sound,
    snr_db=8.0,
    supplemental="noise",
)

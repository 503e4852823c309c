"""Building blocks of machine sound: shafts with speed fluctuation, periodic waves, shaped noise, impulses, resonances.

Signals are float32 (S,) at `rate` Hz; times and angles, which grow over a clip, are float64. All randomness comes
from the generator passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.signal import oaconvolve

Float = NDArray[np.floating[Any]]
Rng = np.random.Generator

#: points per period of the highest harmonic in a wave table: linear interpolation errors stay below -55 dB
POINTS_PER_WAVE = 48
#: seconds between the knots of a slow random fluctuation
KNOT_S = 0.5
#: impulse responses end where they have decayed by 80 dB
DECAY_NEPERS = 4.0 * math.log(10.0)


def decibels(db: float) -> float:
    """Amplitude ratio of a level difference in dB."""
    return float(10.0 ** (db / 20.0))


def rms(signal_S: Float) -> float:
    """Root mean square."""
    return float(np.sqrt(np.vdot(signal_S, signal_S) / signal_S.size))


def at_level(signal_S: Float, db: float) -> Float:
    """The signal (S,) scaled to an RMS of `db` dB relative to 1; silence stays silent."""
    loudness = rms(signal_S)
    return signal_S * (decibels(db) / loudness) if loudness > 0 else signal_S


def wander(samples: int, rate: int, rng: Rng) -> Float:
    """(S,) slow random fluctuation: unit-variance knots 0.5 s apart, linearly interpolated."""
    knots = int(np.ceil(samples / rate / KNOT_S)) + 1
    return np.interp(np.arange(samples) / (rate * KNOT_S), np.arange(knots), rng.standard_normal(knots))


def swell(depth: float, samples: int, rate: int, rng: Rng) -> Float:
    """(S,) 1 + depth x `wander`: slow amplitude changes within a clip."""
    return (1.0 + depth * wander(samples, rate, rng)).astype(np.float32)


def revolutions(speed_hz: float, samples: int, rate: int, rng: Rng, *, slack: float = 0.003) -> Float:
    """(S,) shaft angle in revolutions from a random start; `slack` is the relative std of the speed fluctuation."""
    start = rng.uniform()
    angle_S = 1.0 + slack * wander(samples, rate, rng)
    np.cumsum(angle_S, out=angle_S)
    angle_S *= speed_hz / rate
    angle_S += start
    return angle_S


def periodic(angle_S: Float, table_P: Float) -> Float:
    """(S,) wave with a period of one revolution; `table_P` holds one period, P a power of two.

    The cost is one interpolation, independent of the number of harmonics.
    """
    position_S = angle_S * len(table_P)
    index_S = position_S.astype(np.int64)
    position_S -= index_S
    index_S &= len(table_P) - 1
    table_P = table_P.astype(np.float32)
    rise_P = np.roll(table_P, -1) - table_P
    wave_S = rise_P[index_S]
    wave_S *= position_S
    wave_S += table_P[index_S]
    return wave_S


def table_angles(harmonics: int) -> Float:
    """(P,) angles in revolutions of a wave table fine enough for `harmonics` harmonics."""
    points = 1 << int(np.ceil(np.log2(max(harmonics, 4) * POINTS_PER_WAVE)))
    return np.asarray(np.arange(points) / points)


def harmonics(amplitude_K: Float, rng: Rng) -> Float:
    """(P,) wave table: sum over k >= 1 of amplitude_K[k] cos(2 pi k angle + random phase)."""
    points = len(table_angles(len(amplitude_K)))
    phase_K = np.exp(2j * np.pi * rng.uniform(size=len(amplitude_K)))
    spectrum_K = amplitude_K * phase_K * (points / 2)
    spectrum_K[0] = 0.0
    return np.asarray(scipy.fft.irfft(spectrum_K, points))


def add_blade_passes(
    amplitude_K: Float, blades: int, *, passes: int, weakest: float, modulation: float, unit: Rng, rng: Rng
) -> None:
    """Add blade-pass (or vane-pass) tones in place to the amplitudes (K,) of the shaft orders.

    The tones are at multiples 1 to `passes` of blades x shaft speed. Each amplitude is drawn from `weakest` to 1.2 per
    rotor (`unit`) and divided by its multiple; it varies by a tenth from clip to clip (`rng`). modulation: depth of
    the once-per-revolution modulation, which gives each tone sidebands.
    """
    pass_M = np.arange(1, passes + 1)
    order_M = pass_M * blades
    amplitude_K[order_M] += unit.uniform(weakest, 1.2, passes) / pass_M
    amplitude_K[order_M] *= 1.0 + 0.1 * rng.standard_normal(passes)
    for side in (-1, 1):
        amplitude_K[order_M + side] += 0.5 * modulation * amplitude_K[order_M]


def bump(angle_P: Float, centre: float, width: float) -> Float:
    """(P,) Gaussian bump of height 1, once per revolution; `centre` and `width` (1 sigma) in revolutions."""
    distance_P = (angle_P - centre + 0.5) % 1.0 - 0.5
    return np.asarray(np.exp(-0.5 * (distance_P / width) ** 2))


def noise(samples: int, rate: int, rng: Rng, shape: Callable[[Float], Float]) -> Float:
    """(S,) Gaussian noise of unit expected power with amplitude spectrum shape(frequency in Hz)."""
    length = scipy.fft.next_fast_len(samples, real=True)
    gain_F = shape(scipy.fft.rfftfreq(length, 1.0 / rate).astype(np.float32))
    gain_F[0] = 0.0  # microphones have no DC response
    # Unit power, by Parseval: real and imaginary part of each of length / 2 bins have a variance of 1.
    gain_F *= np.float32(math.sqrt(length / 2.0) / rms(gain_F))
    # The transform of white noise is white noise: it can be drawn in the frequency domain.
    spectrum_F = rng.standard_normal(2 * len(gain_F), dtype=np.float32).view(np.complex64)
    spectrum_F *= gain_F
    return np.asarray(scipy.fft.irfft(spectrum_F, length)[:samples])


def slope(db_per_octave: float, *, low_hz: float) -> Callable[[Float], Float]:
    """Amplitude spectrum that falls by `db_per_octave` above `low_hz` and is flat below."""
    exponent = -db_per_octave / (20.0 * math.log10(2.0))

    def shape(frequency_F: Float) -> Float:
        return np.asarray(np.maximum(frequency_F / low_hz, 1.0) ** exponent)

    return shape


def band(centre_hz: float, octaves: float) -> Callable[[Float], Float]:
    """Amplitude spectrum that is Gaussian over log frequency; `octaves` is its standard deviation."""

    def shape(frequency_F: Float) -> Float:
        distance_F = np.log2(np.maximum(frequency_F, 1.0) / centre_hz)
        return np.asarray(np.exp(-0.5 * (distance_F / octaves) ** 2))

    return shape


def impulses(time_N: Float, amplitude_N: Float, samples: int, rate: int) -> Float:
    """(S,) impulses at fractional times in s, split linearly between adjacent samples; those outside are dropped."""
    position_N = time_N * rate
    inside_N = (position_N >= 0) & (position_N < samples - 1)
    position_N, amplitude_N = position_N[inside_N], amplitude_N[inside_N]
    index_N = position_N.astype(np.intp)
    late_N = position_N - index_N
    signal_S = np.bincount(index_N, (1.0 - late_N) * amplitude_N, minlength=samples)
    signal_S += np.bincount(index_N + 1, late_N * amplitude_N, minlength=samples)
    return signal_S.astype(np.float32)


def poisson_times(per_second: float, seconds: float, rng: Rng) -> Float:
    """Times in s of a Poisson process, unordered."""
    return np.asarray(rng.uniform(0.0, seconds, rng.poisson(per_second * seconds)))


@dataclass(frozen=True)
class Mode:
    """Resonance of a structure: natural frequency in Hz, damping ratio, relative amplitude."""

    frequency_hz: float
    damping: float
    amplitude: float = 1.0


def modes(centres_hz: tuple[float, ...], damping: float, unit: Rng) -> tuple[Mode, ...]:
    """Modes near the given frequencies, randomised per unit."""
    return tuple(
        Mode(centre * unit.uniform(0.94, 1.06), damping * unit.uniform(0.8, 1.25), unit.uniform(0.6, 1.0))
        for centre in centres_hz
    )


def ring(force_S: Float, structure: tuple[Mode, ...], rate: int) -> Float:
    """(S,) response of damped modes, h(t) = exp(-d w t) sin(w t), to a force; modes above 0.45 x rate are dropped."""
    active = [mode for mode in structure if mode.frequency_hz <= 0.45 * rate]
    if not active:
        return np.zeros_like(force_S)
    omega_M = 2.0 * np.pi * np.array([mode.frequency_hz for mode in active])
    decay_M = omega_M * np.array([mode.damping for mode in active])
    # Scaled so that the energy of a mode hardly depends on its damping.
    gain_M = np.array([mode.amplitude for mode in active]) * np.sqrt(decay_M / rate)
    time_R = np.arange(int(DECAY_NEPERS / decay_M.min() * rate) + 1) / rate
    response_R = (np.exp(np.outer(time_R, -decay_M)) * np.sin(np.outer(time_R, omega_M))) @ gain_M
    return np.asarray(oaconvolve(force_S, response_R.astype(np.float32))[: len(force_S)])

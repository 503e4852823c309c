"""Building blocks of machine sound: shafts that wander, periodic waves, shaped noise, impulses, resonances.

Signals are float64 (T,) at `rate` Hz. Randomness comes from the generator that is handed in, nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.signal import lfilter

Float = NDArray[np.float64]
Rng = np.random.Generator

#: points of one revolution in a wave table; harmonic k is then interpolated with an error of (k / 4096)^2
TABLE_POINTS = 8192
#: seconds between the knots of a slowly wandering quantity
KNOT_S = 0.5


def decibels(db: float) -> float:
    """Amplitude ratio of a level difference in dB."""
    return float(10.0 ** (db / 20.0))


def rms(signal_T: Float) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(signal_T))))


def at_level(signal_T: Float, db: float) -> Float:
    """The signal scaled to a root mean square of `db` relative to 1; silence stays silent."""
    loudness = rms(signal_T)
    return signal_T * (decibels(db) / loudness) if loudness > 0 else signal_T


def wander(samples: int, rate: int, rng: Rng) -> Float:
    """A slow random course of unit variance at its knots, 0.5 s apart, linear between them."""
    knots = int(np.ceil(samples / rate / KNOT_S)) + 1
    return np.interp(np.arange(samples) / rate, np.arange(knots) * KNOT_S, rng.standard_normal(knots))


def revolutions(speed_hz: float, samples: int, rate: int, rng: Rng, *, slack: float = 0.003) -> Float:
    """Angle of a shaft in revolutions, from a random start; its speed wanders by `slack` (relative, 1 sigma)."""
    start = rng.uniform()
    speed_T = speed_hz * (1.0 + slack * wander(samples, rate, rng))
    return np.asarray(start + np.cumsum(speed_T) / rate)


def periodic(angle_T: Float, table_P: Float) -> Float:
    """A wave that repeats with every revolution: `table_P` holds one period.

    A table costs one interpolation, however many harmonics it holds.
    """
    position_T = angle_T % 1.0 * len(table_P)
    index_T = position_T.astype(np.intp)
    fraction_T = position_T - index_T
    closed_P = np.append(table_P, table_P[:2])
    return np.asarray(closed_P[index_T] + fraction_T * (closed_P[index_T + 1] - closed_P[index_T]))


def harmonics(amplitude_K: Float, rng: Rng) -> Float:
    """Table (P,) of sum over k of amplitude_K[k] cos(2 pi k angle + random phase)."""
    phase_K = np.exp(2j * np.pi * rng.uniform(size=len(amplitude_K)))
    spectrum = np.zeros(TABLE_POINTS // 2 + 1, dtype=np.complex128)
    spectrum[: len(amplitude_K)] = amplitude_K * phase_K * (TABLE_POINTS / 2)
    spectrum[0] = 0.0
    return np.asarray(scipy.fft.irfft(spectrum, TABLE_POINTS))


def angles() -> Float:
    """The angles, in revolutions, at which a table is sampled."""
    return np.asarray(np.arange(TABLE_POINTS) / TABLE_POINTS)


def bump(at: float, width: float) -> Float:
    """Table of a Gaussian bump of height 1 once a revolution; `at` and `width` (1 sigma) in revolutions."""
    distance_P = (angles() - at + 0.5) % 1.0 - 0.5
    return np.asarray(np.exp(-0.5 * (distance_P / width) ** 2))


def noise(samples: int, rate: int, rng: Rng, shape: Callable[[Float], Float]) -> Float:
    """Gaussian noise of unit expected power whose amplitude spectrum follows shape(frequency in Hz)."""
    length = scipy.fft.next_fast_len(samples, real=True)
    gain_F = shape(scipy.fft.rfftfreq(length, 1.0 / rate))
    gain_F[0] = 0.0  # microphones do not carry DC
    gain_F /= np.sqrt(np.mean(np.square(gain_F)))
    spectrum_F = scipy.fft.rfft(rng.standard_normal(length)) * gain_F
    return np.asarray(scipy.fft.irfft(spectrum_F, length)[:samples])


def slope(db_per_octave: float, *, low_hz: float = 50.0, high_hz: float = 1e9) -> Callable[[Float], Float]:
    """Spectrum that falls by `db_per_octave` above `low_hz`, is flat below, and ends softly above `high_hz`."""
    exponent = -db_per_octave / (20.0 * np.log10(2.0))

    def shape(frequency_F: Float) -> Float:
        gain_F = np.maximum(frequency_F / low_hz, 1.0) ** exponent
        return np.asarray(gain_F / np.sqrt(1.0 + (frequency_F / high_hz) ** 4))

    return shape


def band(centre_hz: float, octaves: float) -> Callable[[Float], Float]:
    """Spectrum that is a Gaussian hump over log frequency; `octaves` is its standard deviation."""

    def shape(frequency_F: Float) -> Float:
        distance_F = np.log2(np.maximum(frequency_F, 1.0) / centre_hz)
        return np.asarray(np.exp(-0.5 * (distance_F / octaves) ** 2))

    return shape


def impulses(time_N: Float, amplitude_N: Float, samples: int, rate: int) -> Float:
    """Impulses at any times in s; each is shared by the two samples it lies between. Those outside are left out."""
    position_N = time_N * rate
    inside_N = (position_N >= 0) & (position_N < samples - 1)
    position_N, amplitude_N = position_N[inside_N], amplitude_N[inside_N]
    index_N = position_N.astype(np.intp)
    late_N = position_N - index_N
    signal_T = np.bincount(index_N, (1.0 - late_N) * amplitude_N, minlength=samples)
    return np.asarray(signal_T + np.bincount(index_N + 1, late_N * amplitude_N, minlength=samples))


def poisson_times(per_second: float, seconds: float, rng: Rng) -> Float:
    """Times in s of events that come independently of each other."""
    return np.asarray(rng.uniform(0.0, seconds, rng.poisson(per_second * seconds)))


@dataclass(frozen=True)
class Mode:
    """A resonance of a structure: natural frequency in Hz, damping ratio, relative amplitude."""

    frequency_hz: float
    damping: float
    amplitude: float = 1.0


def modes(centres_hz: tuple[float, ...], damping: float, unit: Rng) -> tuple[Mode, ...]:
    """Modes about the given frequencies: no two castings are alike."""
    return tuple(
        Mode(centre * unit.uniform(0.94, 1.06), damping * unit.uniform(0.8, 1.25), unit.uniform(0.6, 1.0))
        for centre in centres_hz
    )


def ring(force_T: Float, structure: tuple[Mode, ...], rate: int) -> Float:
    """Response of damped modes, h(t) = exp(-d w t) sin(w t), to a force; unheard modes above 0.45 rate are left out."""
    response_T = np.zeros_like(force_T)
    for mode in structure:
        if mode.frequency_hz > 0.45 * rate:
            continue
        omega = 2.0 * np.pi * mode.frequency_hz / rate
        radius = np.exp(-mode.damping * omega)
        gain = mode.amplitude * np.sqrt(mode.damping * omega)  # about equal energy for every damping
        numerator = [0.0, gain * radius * np.sin(omega)]
        response_T += lfilter(numerator, [1.0, -2.0 * radius * np.cos(omega), radius**2], force_T)
    return response_T

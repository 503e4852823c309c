"""Statistics of a recording's signal that distinguish faults of a sensor or recorder from sounds of a machine.

Most faults of the recording chain leave traces that no sound has: values that repeat exactly, stand still, jump within
one sample or stay at one limit. The others (noise, hum, missing bands) show in level and spectrum, beside those of
normal recordings. All levels are those of the deviation from the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from harken.audio.moments import means
from harken.audio.traces import clicks_hz, clipped_and_edges, coding, constant, repeated

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: half-octave bands below half the sampling rate
BANDS = 16
#: in the order of `Health.values_CK`; see `Health`
STATISTICS = (
    "level_db", "mean", "loud_db", "quiet_db", "clipped_low", "clipped_high", "clipped_time", "edge_low", "edge_high",
    "longest_constant_s", "gap_s", "repeated", "clicks_hz", "swapped_db", "wraps", "values", "hum", "rest_db",
    "correlation", *(f"band_{band}_db" for band in range(BANDS)),
)  # fmt: skip

#: frequencies of the mains in Hz
MAINS_HZ = (50.0, 60.0)
_TINY = 1e-30
#: frames that are transformed in one call
_FRAMES = 16


@dataclass(frozen=True, eq=False)
class Health:
    """Statistics of the channels of a recording.

    values_CK: (channels, statistics) float32. By name, each (channels,):
    level_db: RMS, dBFS. mean: of the samples. loud_db, quiet_db: 95th and 5th percentile of the level of 0.1 s.
    clipped_low, clipped_high: share of samples in runs at the lowest and highest value. clipped_time: share of 0.1 s
    with such a run. edge_low, edge_high: share of 0.1 s whose lowest (highest) value is that of the whole recording,
    within 2 % of the range.
    longest_constant_s: longest run of equal samples between the limits, in seconds. gap_s: sum of the runs that last
    5 ms or more and begin or end abruptly. repeated: share of the signal that is an exact copy of an earlier piece.
    clicks_hz: isolated jumps per second that last one or two samples. swapped_db: level with the bytes of each sample
    swapped; that of the recording where it has no 16- or 24-bit samples. wraps: share of steps over most of full
    scale; zero where most large steps are smaller.
    values: different values among 8192 samples. hum: share of the power at multiples of 50 or 60 Hz, whichever is
    higher. rest_db: level without it. correlation: with the first channel. band_0_db ...: level of half-octave bands
    from low to high, the highest up to half the sampling rate.
    """

    values_CK: Float32

    def __getitem__(self, name: str) -> Float64:
        return self.values_CK[:, STATISTICS.index(name)].astype(np.float64)

    @property
    def bands_db_CB(self) -> Float64:
        """(channels, bands) level in dBFS, from low to high."""
        return self.values_CK[:, -BANDS:].astype(np.float64)


def measure(
    samples_CS: Float32,
    sample_rate: int,
    heard_CS: Float32 | None = None,
    heard_rate: int | None = None,
    mean_C: Float64 | None = None,
) -> Health:
    """Statistics of finite (channels, samples) at `sample_rate` Hz.

    heard_CS, heard_rate: the same recording resampled, of which the spectrum is measured. mean_C: `moments.means` of
    the samples, if they are there.
    """
    mean_C = means(samples_CS) if mean_C is None else mean_C
    if heard_CS is None or heard_rate is None:
        heard_CS, heard_rate = samples_CS, sample_rate
    rows = []
    first_S: Float32 | None = None
    for channel_S, heard_S, mean in zip(samples_CS, heard_CS, mean_C.tolist(), strict=True):
        centred_S = channel_S - np.float32(mean)
        first_S = centred_S if first_S is None else first_S
        power = _power(centred_S)
        low, high = float(channel_S.min()), float(channel_S.max())
        equal_P = np.flatnonzero(channel_S[1:] == channel_S[:-1])
        swapped, wraps, values = coding(channel_S, low, high, power)
        # The same array is centred once.
        heard_S = centred_S if heard_CS is samples_CS else heard_S - np.float32(heard_S.mean(dtype=np.float64))
        hum, rest_db, *bands_db = _spectrum(heard_S, heard_rate)
        rows.append(
            [
                *_levels(centred_S, power, mean, sample_rate),
                *clipped_and_edges(channel_S, low, high, sample_rate),
                *constant(channel_S, equal_P, low, high, power, sample_rate),
                repeated(channel_S, equal_P),
                clicks_hz(channel_S, sample_rate),
                _decibels(swapped),
                wraps,
                values,
                hum,
                rest_db,
                _correlation(first_S, centred_S, power),
                *bands_db,
            ]
        )
    return Health(np.array(rows, dtype=np.float32))


def _decibels(power: float) -> float:
    return float(10 * np.log10(max(power, _TINY)))


def _power(centred_S: Float32) -> float:
    return float(np.dot(centred_S, centred_S)) / len(centred_S)


def _levels(centred_S: Float32, power: float, mean: float, sample_rate: int) -> list[float]:
    block = min(len(centred_S), max(16, round(0.1 * sample_rate)))
    blocks_TS = centred_S[: len(centred_S) // block * block].reshape(-1, block)
    level_T = 10 * np.log10(np.maximum(np.einsum("ts,ts->t", blocks_TS, blocks_TS) / block, _TINY))
    loud, quiet = np.percentile(level_T, [95, 5])
    return [_decibels(power), mean, float(loud), float(quiet)]


def _correlation(first_S: Float32, other_S: Float32, other_power: float) -> float:
    power = np.sqrt((other_power if first_S is other_S else _power(first_S)) * other_power)
    return float(np.dot(first_S, other_S) / len(first_S) / power) if power > 0 else 0.0


class _Bins:
    """What `_spectrum` needs of a sampling rate and n_fft.

    window_N: Hann. mains: for each of `MAINS_HZ` that can be resolved, the bins at its multiples. places: of the edges
    of the bands among the bins.
    """

    def __init__(self, sample_rate: int, n_fft: int) -> None:
        self.window_N = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
        self.power = float(np.dot(self.window_N, self.window_N))
        spacing = sample_rate / n_fft
        hz_F = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
        self.mains = []
        for mains in MAINS_HZ:
            order_F = np.rint(hz_F / mains)
            if spacing < mains / 12 and mains < sample_rate / 2:
                near = (np.abs(hz_F - order_F * mains) <= 2.01 * spacing) & (order_F >= 1) & (hz_F <= 1_100)
                self.mains.append(np.flatnonzero(near))
        edges = sample_rate / 2 * 2.0 ** (-0.5 * np.arange(BANDS, -1, -1))
        self.places = np.searchsorted(hz_F, edges, side="right")


_bins = lru_cache(maxsize=8)(_Bins)


def _spectrum(centred_S: Float32, sample_rate: int) -> list[float]:
    """hum, rest_db and the bands' levels."""
    # Bins of about 1 Hz, or 512 of them.
    n_fft = 1 << max(9, round(np.log2(sample_rate)))
    n_fft = min(n_fft, 1 << int(np.log2(len(centred_S))))
    bins = _bins(sample_rate, n_fft)
    power_F = np.zeros(n_fft // 2 + 1)
    frames = centred_S[: len(centred_S) // n_fft * n_fft].reshape(-1, n_fft)
    for first in range(0, len(frames), _FRAMES):
        spectrum_TF = scipy.fft.rfft(frames[first : first + _FRAMES] * bins.window_N)
        parts_T2F = spectrum_TF.view(np.float32)
        parts_T2F *= parts_T2F
        power_2F = parts_T2F.sum(axis=0)
        power_F += power_2F[0::2]
        power_F += power_2F[1::2]
    # One-sided, so that the sum of all bins is the mean square.
    power_F *= 2 / (len(frames) * n_fft * bins.power)
    total = max(float(power_F.sum()), _TINY)
    hum = max((float(power_F[at].sum()) / total for at in bins.mains), default=0.0)
    sums = np.concatenate([[0.0], np.cumsum(power_F)])
    bands = 10 * np.log10(np.maximum(sums[bins.places[1:]] - sums[bins.places[:-1]], _TINY))
    return [hum, _decibels(total * (1 - hum)), *bands.tolist()]

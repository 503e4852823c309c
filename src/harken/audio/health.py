"""Statistics of a recording's signal that distinguish faults of a sensor or recorder from sounds of a machine.

Most faults of the recording chain leave traces that no sound has: values that repeat exactly, stand still, jump within
one sample or stay at one limit. The others (noise, hum, missing bands) show in level and spectrum, beside those of
normal recordings. All levels are those of the deviation from the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

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
#: samples that are compared as one, to find repeated blocks
_WINDOW = 32
#: a click is this many times higher than the typical second difference
_CLICK_HEIGHT = 25.0
#: below this rate in Hz, a real shock may be one sample long
_CLICK_RATE = 4_000
_TINY = 1e-30
#: weights of a polynomial hash of a window, modulo 2^32
_HASH_W = np.cumprod(np.full(_WINDOW, 668_265_263, dtype=np.uint32), dtype=np.uint32)
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
    samples_CS: Float32, sample_rate: int, heard_CS: Float32 | None = None, heard_rate: int | None = None
) -> Health:
    """Statistics of finite (channels, samples) at `sample_rate` Hz.

    heard_CS, heard_rate: the same recording resampled, of which the spectrum is measured.
    """
    if heard_CS is None or heard_rate is None:
        heard_CS, heard_rate = samples_CS, sample_rate
    rows = []
    first = _centred(samples_CS[0])
    for channel_S, heard_S in zip(samples_CS, heard_CS, strict=True):
        centred = _centred(channel_S)
        rows.append(
            [
                *_levels(centred, float(channel_S.mean(dtype=np.float64)), sample_rate),
                *_limits(channel_S, sample_rate),
                *_constant(channel_S, centred, sample_rate),
                _repeated(channel_S),
                _clicks_hz(channel_S, sample_rate),
                *_coding(channel_S, centred),
                *_spectrum(_centred(heard_S), heard_rate, centred is first or _correlation(first, centred)),
            ]
        )
    return Health(np.array(rows, dtype=np.float32))


def _centred(channel_S: Float32) -> Float32:
    return channel_S - np.float32(channel_S.mean(dtype=np.float64))


def _decibels(power: float) -> float:
    return float(10 * np.log10(max(power, _TINY)))


def _power(centred_S: Float32) -> float:
    return float(np.dot(centred_S, centred_S)) / len(centred_S)


def _levels(centred_S: Float32, mean: float, sample_rate: int) -> list[float]:
    block = min(len(centred_S), max(16, round(0.1 * sample_rate)))
    blocks_TS = centred_S[: len(centred_S) // block * block].reshape(-1, block)
    level_T = 10 * np.log10(np.maximum(np.einsum("ts,ts->t", blocks_TS, blocks_TS) / block, _TINY))
    loud, quiet = np.percentile(level_T, [95, 5])
    return [_decibels(_power(centred_S)), mean, float(loud), float(quiet)]


def _limits(channel_S: Float32, sample_rate: int) -> list[float]:
    """clipped_low, clipped_high, clipped_time, edge_low, edge_high."""
    low, high = float(channel_S.min()), float(channel_S.max())
    count = len(channel_S)
    block = min(count, max(16, round(0.1 * sample_rate)))
    flat_time = np.zeros(-(-count // block), dtype=bool)
    clipped = []
    for side_S in (channel_S - np.float32(low), np.float32(high) - channel_S):
        at_limit = np.flatnonzero(side_S <= 1e-4 * (high - low))
        # Runs of two and more: a peak is no flat top.
        next_to = np.diff(at_limit) == 1
        flat = at_limit[np.concatenate([[False], next_to]) | np.concatenate([next_to, [False]])]
        clipped.append(len(flat) / count)
        flat_time[flat // block] = True
    blocks_TS = channel_S[: count // block * block].reshape(-1, block)
    low_T, high_T = blocks_TS.min(axis=1), blocks_TS.max(axis=1)
    near_T = 0.02 * (high_T - low_T)
    edges = [np.mean(low_T - low <= near_T), np.mean(high - high_T <= near_T)]
    return [*clipped, float(flat_time.mean()), *(float(edge) for edge in edges)]


def _constant(channel_S: Float32, centred_S: Float32, sample_rate: int) -> list[float]:
    """longest_constant_s, gap_s."""
    same = channel_S[1:] == channel_S[:-1]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    starts, stops = edges[::2], edges[1::2] + 1
    least = max(16, round(0.005 * sample_rate))
    value = channel_S[starts]
    between = (value > channel_S.min()) & (value < channel_S.max())
    longest = int((stops - starts)[between].max(initial=1))
    long = between & (stops - starts >= least)
    near = max(16, round(0.01 * sample_rate))
    level = np.sqrt(_power(centred_S))
    gap = 0
    for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True):
        beside = [channel_S[max(0, start - near) : start], channel_S[stop : stop + near]]
        # A machine that stops dies away; a gap begins and ends in the middle of its sound.
        if any(len(side) and np.abs(side - channel_S[start]).mean() > 0.1 * level for side in beside):
            gap += stop - start
    return [longest / sample_rate, gap / sample_rate]


def _repeated(channel_S: Float32) -> float:
    if len(channel_S) < 4 * _WINDOW:
        return 0.0
    # Unsigned integers wrap. Samples of 16 bits have many zeros at the end of their float32.
    mixed_S = np.ascontiguousarray(channel_S).view(np.uint32) * np.uint32(2_654_435_761)
    mixed_S ^= mixed_S >> np.uint32(15)
    # One window of 16, chosen by its content, so that copies are chosen wherever they stand.
    pair_S = (mixed_S[:-1] * np.uint32(2_246_822_519) ^ mixed_S[1:]) * np.uint32(3_266_489_917)
    starts = np.flatnonzero(pair_S[: len(channel_S) - _WINDOW + 1] < np.uint32(1 << 28))
    same = np.cumsum(channel_S[1:] == channel_S[:-1], dtype=np.int32)
    before = np.where(starts > 0, same[starts - 1], 0)
    starts = starts[same[starts + _WINDOW - 2] - before < _WINDOW // 4]
    if len(starts) < 8:
        return 0.0
    content = np.einsum("nw,w->n", np.lib.stride_tricks.sliding_window_view(mixed_S, _WINDOW)[starts], _HASH_W)
    content.sort()
    return float(np.count_nonzero(content[1:] == content[:-1]) / len(content))


def _clicks_hz(channel_S: Float32, sample_rate: int) -> float:
    if sample_rate < _CLICK_RATE or len(channel_S) < 64:
        return 0.0
    second_S = 2 * channel_S[1:-1] - channel_S[:-2] - channel_S[2:]
    typical = float(np.median(np.abs(second_S[:: max(1, len(second_S) // 8192)]))) / 0.6745
    # Loud recordings of few steps have no typical difference.
    typical = max(typical, 1e-4)
    high = np.flatnonzero(np.abs(second_S) > _CLICK_HEIGHT * typical)
    high = high[(high >= 12) & (high < len(second_S) - 12)][:20_000]
    if not len(high):
        return 0.0
    # Around each high place, in units of its height. A click of one sample is -1/2 1 -1/2, of two -1 1 1 -1, with
    # nothing before and behind: a knock rings for longer, a microphone too.
    around = second_S[high[:, None] + np.arange(-12, 13)] / second_S[high, None]
    shapes = np.zeros((2, 25), dtype=np.float32)
    shapes[0, 11:14] = -0.5, 1.0, -0.5
    shapes[1, 11:15] = -1.0, 1.0, 1.0, -1.0
    slack = 0.05 + 5 * typical / np.abs(second_S[high])
    clicks = [np.all(np.abs(around - shape) < slack[:, None], axis=1) for shape in shapes]
    return float(np.count_nonzero(clicks[0] | clicks[1]) * sample_rate / len(channel_S))


def _coding(channel_S: Float32, centred_S: Float32) -> list[float]:
    """swapped_db, wraps, values."""
    some = channel_S[:: max(1, len(channel_S) // 8192)][:8192]
    step_S = np.abs(np.diff(channel_S))
    full, half = (np.count_nonzero(step_S > height) for height in (1.7, 1.0))
    # Steps of loud sound become rarer with their height, those of an overflow do not.
    wraps = full / len(channel_S) if full > 0.2 * half else 0.0
    level_db = _decibels(_power(centred_S))
    swapped: Float64 | None = None
    for bits, width in ((16, 2), (24, 3)):
        scaled = some.astype(np.float64) * 2 ** (bits - 1)
        rounded = np.rint(scaled)
        if np.array_equal(scaled, rounded) and np.abs(rounded).max() <= 2 ** (bits - 1):
            unsigned = np.minimum(rounded, 2 ** (bits - 1) - 1).astype(np.int64) % 2**bits
            bytes_ = [(unsigned >> 8 * place) & 0xFF for place in range(width)]
            turned = sum(byte << 8 * (width - 1 - place) for place, byte in enumerate(bytes_))
            swapped = ((turned + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)) / 2 ** (bits - 1)
            break
    swapped_db = level_db if swapped is None else _decibels(float(np.var(swapped)))
    return [swapped_db, wraps, float(len(np.unique(some)))]


def _correlation(first_S: Float32, other_S: Float32) -> float:
    power = np.sqrt(_power(first_S) * _power(other_S))
    return float(np.dot(first_S, other_S) / len(first_S) / power) if power > 0 else 0.0


def _spectrum(centred_S: Float32, sample_rate: int, correlation: float) -> list[float]:
    """hum, rest_db, correlation and the bands' levels."""
    # Bins of about 1 Hz, or 512 of them.
    n_fft = 1 << max(9, round(np.log2(sample_rate)))
    n_fft = min(n_fft, 1 << int(np.log2(len(centred_S))))
    window_N = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    power_F = np.zeros(n_fft // 2 + 1)
    frames = centred_S[: len(centred_S) // n_fft * n_fft].reshape(-1, n_fft)
    for first in range(0, len(frames), _FRAMES):
        spectrum_TF = scipy.fft.rfft(frames[first : first + _FRAMES] * window_N)
        power_F += np.einsum("tf,tf->f", spectrum_TF.real, spectrum_TF.real)
        power_F += np.einsum("tf,tf->f", spectrum_TF.imag, spectrum_TF.imag)
    # One-sided, so that the sum of all bins is the mean square.
    power_F *= 2 / (len(frames) * n_fft * float(np.dot(window_N, window_N)))
    hz_F = np.arange(len(power_F)) * sample_rate / n_fft
    total = max(float(power_F.sum()), _TINY)
    spacing = sample_rate / n_fft
    hum = 0.0
    for mains in MAINS_HZ:
        order_F = np.rint(hz_F / mains)
        if spacing < mains / 12 and mains < sample_rate / 2:
            near = (np.abs(hz_F - order_F * mains) <= 2.01 * spacing) & (order_F >= 1) & (hz_F <= 1_100)
            hum = max(hum, float(power_F[near].sum()) / total)
    edges = sample_rate / 2 * 2.0 ** (-0.5 * np.arange(BANDS, -1, -1))
    sums = np.concatenate([[0.0], np.cumsum(power_F)])
    places = np.searchsorted(hz_F, edges, side="right")
    bands = 10 * np.log10(np.maximum(sums[places[1:]] - sums[places[:-1]], _TINY))
    return [hum, _decibels(total * (1 - hum)), float(correlation), *bands.tolist()]

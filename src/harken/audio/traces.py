"""Traces of the recording chain in single channels, which no sound leaves: see `audio.health.Health`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Ints = NDArray[np.intp]

#: samples that are compared as one, to find repeated blocks
_WINDOW = 32
#: places in a window by which those that may be equal are found
_PROBES = (3, 9, 17, 31)
#: a click is this many times higher than the typical second difference
_CLICK_HEIGHT = 25.0
#: seconds behind a click in which a room answers
_ANSWER_S = 0.02
#: below this rate in Hz, a real shock may be one sample long
_CLICK_RATE = 4_000
#: weights of a polynomial hash of a window, modulo 2^32
_HASH_W = np.cumprod(np.full(_WINDOW, 668_265_263, dtype=np.uint32), dtype=np.uint32)


def clipped_and_edges(channel_S: Float32, low: float, high: float, sample_rate: int) -> list[float]:
    """clipped_low, clipped_high, clipped_time, edge_low, edge_high of (samples,) from `low` to `high`."""
    count = len(channel_S)
    block = min(count, max(16, round(0.1 * sample_rate)))
    flat_time = np.zeros(-(-count // block), dtype=bool)
    clipped = []
    low_32, high_32, slack = np.float32(low), np.float32(high), 1e-4 * (high - low)
    # Few samples are near a limit; how near is worked out for these.
    near_low = np.flatnonzero(channel_S <= low_32 + np.float32(2 * slack))
    near_high = np.flatnonzero(channel_S >= high_32 - np.float32(2 * slack))
    for at_limit in (
        near_low[channel_S[near_low] - low_32 <= slack],
        near_high[high_32 - channel_S[near_high] <= slack],
    ):
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


def runs(places: Ints) -> tuple[Ints, Ints]:
    """First place and length of each run of consecutive integers in ascending `places`."""
    if not len(places):
        return places, places
    begins = np.concatenate([[0], np.flatnonzero(np.diff(places) != 1) + 1])
    return places[begins], np.diff(np.append(begins, len(places)))


def constant(channel_S: Float32, equal_P: Ints, low: float, high: float, power: float, sample_rate: int) -> list[float]:
    """longest_constant_s, gap_s of (samples,) from `low` to `high`.

    equal_P: places of samples that equal the next one. power: mean square without the mean.
    """
    starts, steps = runs(equal_P)
    stops = starts + steps + 1
    least = max(16, round(0.005 * sample_rate))
    value = channel_S[starts]
    between = (value > low) & (value < high)
    longest = int((stops - starts)[between].max(initial=1))
    long = between & (stops - starts >= least)
    near = max(16, round(0.01 * sample_rate))
    level = np.sqrt(power)
    gap = 0
    for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True):
        beside = [channel_S[max(0, start - near) : start], channel_S[stop : stop + near]]
        # A machine that stops dies away; a gap begins and ends in the middle of its sound.
        if any(len(side) and np.abs(side - channel_S[start]).mean() > 0.1 * level for side in beside):
            gap += stop - start
    return [longest / sample_rate, gap / sample_rate]


def repeated(channel_S: Float32, equal_P: Ints) -> float:
    """Share of chosen windows of (samples,) that are equal to another one. equal_P: as of `constant`."""
    if len(channel_S) < 4 * _WINDOW:
        return 0.0
    # Unsigned integers wrap. Samples of 16 bits have many zeros at the end of their float32.
    mixed_S = np.ascontiguousarray(channel_S).view(np.uint32) * np.uint32(2_654_435_761)
    mixed_S ^= mixed_S >> np.uint32(15)
    # One window of 16, chosen by its content, so that copies are chosen wherever they stand.
    pair_S = mixed_S[:-1] * np.uint32(2_246_822_519)
    pair_S ^= mixed_S[1:]
    pair_S *= np.uint32(3_266_489_917)
    starts = np.flatnonzero(pair_S[: len(channel_S) - _WINDOW + 1] < np.uint32(1 << 28))
    # Windows in which a quarter of the samples equal the next one are alike by chance.
    quarter = _WINDOW // 4
    if len(equal_P) >= quarter and np.any(equal_P[quarter - 1 :] - equal_P[: 1 - quarter] < _WINDOW - 1):
        equal_S = np.zeros(len(channel_S), dtype=np.int32)
        equal_S[equal_P + 1] = 1
        before_S = np.cumsum(equal_S, dtype=np.int32)
        starts = starts[before_S[starts + _WINDOW - 1] - before_S[starts] < quarter]
    if len(starts) < 8:
        return 0.0
    count = len(starts)
    # Of a few of their samples, most windows are known to be unlike all others.
    key_N = pair_S[starts]
    for place in _PROBES:
        key_N *= np.uint32(2_246_822_519)
        key_N += mixed_S[place:].take(starts)
    sorted_N = np.sort(key_N)
    twice = sorted_N[1:][sorted_N[1:] == sorted_N[:-1]]
    if not len(twice):
        return 0.0
    starts = starts[np.isin(key_N, twice)]
    content = np.einsum("nw,w->n", np.lib.stride_tricks.sliding_window_view(mixed_S, _WINDOW)[starts], _HASH_W)
    content.sort()
    return float(np.count_nonzero(content[1:] == content[:-1]) / count)


def clicks_hz(channel_S: Float32, sample_rate: int) -> float:
    """Isolated jumps per second of (samples,), which last one or two samples, and after which nothing is heard.

    A spark, a tick or a loose part may be as short; the room answers them for some milliseconds, electricity it does
    not.
    """
    if sample_rate < _CLICK_RATE or len(channel_S) < 64:
        return 0.0
    second_S = 2 * channel_S[1:-1]
    second_S -= channel_S[:-2]
    second_S -= channel_S[2:]
    some = np.abs(second_S[:: max(1, len(second_S) // 8192)])
    highest = max(float(second_S.max()), -float(second_S.min()))
    # Counted faster than the median is found: it is so high in most recordings.
    if np.count_nonzero(some > 0.675 * highest / _CLICK_HEIGHT) > len(some) // 2 + 1:
        return 0.0
    # Loud recordings of few steps have no typical difference.
    typical = max(float(np.median(some)) / 0.6745, 1e-4)
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
    is_click = np.any([np.all(np.abs(around - shape) < slack[:, None], axis=1) for shape in shapes], axis=0)
    count = np.count_nonzero(is_click)
    if not count or _answered(second_S, high[is_click], high, sample_rate):
        return 0.0
    return float(count * sample_rate / len(channel_S))


def _answered(second_S: Float32, clicks: Ints, high: Ints, sample_rate: int) -> bool:
    """Whether more is heard behind clicks than before them: echoes, and what rings.

    second_S: second differences. clicks: some of the places of `high` ones, each of which counts for neither side.
    """
    power_S = second_S.astype(np.float64) ** 2
    counted_S = np.ones(len(power_S), dtype=bool)
    counted_S[np.clip(high[:, None] + np.arange(-2, 4), 0, len(power_S) - 1)] = False
    energy = np.concatenate([[0.0], np.cumsum(power_S * counted_S)])
    number = np.concatenate([[0], np.cumsum(counted_S)])
    near, far = 8, 8 + round(_ANSWER_S * sample_rate)

    def mean_power(first: Ints, last: Ints) -> float:
        first, last = np.clip(first, 0, len(power_S)), np.clip(last, 0, len(power_S))
        return float((energy[last] - energy[first]).sum() / max(1, (number[last] - number[first]).sum()))

    before, after = mean_power(clicks - far, clicks - near), mean_power(clicks + near, clicks + far)
    # The sound of a machine is not steady: a few clicks stand where it happens to become louder.
    return after > before * (1.1 + 0.6 / np.sqrt(len(clicks)))


def coding(channel_S: Float32, low: float, high: float, power: float) -> list[float]:
    """Power with the bytes of each sample swapped, then wraps and values, of (samples,) from `low` to `high`.

    power: mean square without the mean, the first where there are no samples of 16 or 24 bits.
    """
    some = channel_S[:: max(1, len(channel_S) // 8192)][:8192]
    wraps = 0.0
    if high - low > 1.0:
        step_S = np.abs(np.diff(channel_S))
        full, half = (np.count_nonzero(step_S > height) for height in (1.7, 1.0))
        # Steps of loud sound become rarer with their height, those of an overflow do not.
        wraps = full / len(channel_S) if full > 0.2 * half else 0.0
    for bits in (16, 24):
        scaled = some * np.float32(2 ** (bits - 1))
        if np.array_equal(scaled, np.rint(scaled)) and np.abs(scaled).max() <= 2 ** (bits - 1):
            integer_S = np.minimum(scaled.astype(np.int32), 2 ** (bits - 1) - 1)
            # The bytes of the lowest `bits`, swapped, with the sign of the first of them.
            turned = integer_S.byteswap() >> (32 - bits) if bits == 24 else integer_S.astype(np.int16).byteswap()
            power = float(np.var(turned / 2 ** (bits - 1)))
            if bits == 16:
                occurs = np.zeros(1 << 16, dtype=bool)
                occurs[integer_S + (1 << 15)] = True
                # The highest value stands for full scale, too, which is another one.
                values = np.count_nonzero(occurs) + int(2 ** (bits - 1) in scaled and 2 ** (bits - 1) - 1 in scaled)
                return [power, wraps, float(values)]
            break
    return [power, wraps, float(len(np.unique(some)))]

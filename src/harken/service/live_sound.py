"""Sound as it is heard, as a picture and a level, for as long as somebody watches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from harken.audio.log_mel import slaney_bands, slaney_hz, slaney_mel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bytes = NDArray[np.uint8]

#: seconds of a column, columns that are kept, and mel bands of each
COLUMN_S, KEPT, BANDS = 0.1, 600, 64
#: a byte of a column: 0 is this level in dBFS, each step above it so many dB
FLOOR_DB, STEP_DB = -120.0, 0.5
#: samples at or beyond it are clipped
FULL_SCALE = 0.999
#: sound is drawn at most so much faster than it passes, once as much as is kept: an archive is not drawn in full
_FASTER = 2.0
#: where so many seconds are missing, so many columns are dark
_GAP_S, _GAP_COLUMNS = 1.0, 2
#: columns that a level is measured over
_LEVEL_COLUMNS = 10


@dataclass(frozen=True, eq=False)
class SoundColumns:
    """SoundColumns of a picture. first: number of the first one. levels_TM: (columns, bands) bytes, see `FLOOR_DB`.

    end: time of the end of the last one; None before any sound. sample_rate: Hz, 0 before any. level_db, peak_db: of
    the last second, dBFS. clipped: share of its samples at full scale. strongest_hz: centre of its loudest band.
    """

    first: int
    levels_TM: Bytes
    sample_rate: int = 0
    end: datetime | None = None
    level_db: float = FLOOR_DB
    peak_db: float = FLOOR_DB
    clipped: float = 0.0
    strongest_hz: float = 0.0

    @property
    def next(self) -> int:
        """Number of the column that will follow."""
        return self.first + len(self.levels_TM)


@dataclass(frozen=True, eq=False)
class _Measured:
    """A column: bytes of its bands, mean square of its samples, highest one, share of those at full scale."""

    levels_M: Bytes
    mean_square: float
    peak: float
    clipped: float


_DARK = _Measured(np.zeros(BANDS, np.uint8), 0.0, 0.0, 0.0)


class LiveSound:
    """The last minute of a machine's sound in columns of `COLUMN_S`. Threads may share it.

    Nothing is computed while nobody watches. Channels are drawn as their mean power.
    """

    def __init__(self) -> None:
        self._columns: deque[_Measured] = deque(maxlen=KEPT)
        self._count, self._watching = 0, 0
        self._rate, self._end = 0, None  # type: int, datetime | None
        self._rest_CS: Float32 = np.zeros((1, 0), np.float32)
        self._tail_CS: Float32 = np.zeros((1, 0), np.float32)
        self._allowed_s, self._at = KEPT * COLUMN_S, time.monotonic()
        self._lock = threading.Lock()

    @property
    def is_watched(self) -> bool:
        """Whether sound is drawn now."""
        return self._watching > 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, sound is drawn."""
        with self._lock:
            self._watching += 1
        try:
            yield
        finally:
            with self._lock:
                self._watching -= 1

    def hear(self, samples_CS: Float32, sample_rate: int, start: datetime) -> None:
        """Draw (channels, samples) of sound that begins at `start`, if somebody watches."""
        if not self._watching or not samples_CS.shape[1]:
            return
        with self._lock:
            now = time.monotonic()
            self._allowed_s = min(KEPT * COLUMN_S, self._allowed_s + _FASTER * (now - self._at))
            self._at = now
            if self._allowed_s <= 0:
                return
            # What is older would not be seen.
            samples_CS = samples_CS[:, -round(KEPT * COLUMN_S * sample_rate) :]
            if not np.isfinite(samples_CS).all():
                samples_CS = np.nan_to_num(samples_CS, posinf=1.0, neginf=-1.0)
            self._allowed_s -= samples_CS.shape[1] / sample_rate
            missing = self._end is not None and abs((start - self._end).total_seconds()) > _GAP_S
            if sample_rate != self._rate or len(samples_CS) != len(self._rest_CS) or missing:
                self._rate = sample_rate
                self._rest_CS = self._tail_CS = np.zeros((len(samples_CS), 0), np.float32)
            if missing:
                self._columns.extend([_DARK] * _GAP_COLUMNS)
                self._count += _GAP_COLUMNS
            joined_CS = np.concatenate([self._rest_CS, samples_CS], axis=1)
            width = max(2, round(COLUMN_S * sample_rate))
            count = joined_CS.shape[1] // width
            self._rest_CS = joined_CS[:, count * width :].copy()
            self._end = start + timedelta(seconds=samples_CS.shape[1] / sample_rate)
            if count:
                self._draw(joined_CS[:, : count * width], count)

    def since(self, number: int) -> SoundColumns:
        """SoundColumns from `number` on, or as many as are kept."""
        with self._lock:
            kept = len(self._columns)
            count = min(max(0, self._count - number), kept)
            if not 0 <= number <= self._count:
                count = kept
            chosen = [self._columns[kept - count + row].levels_M for row in range(count)]
            levels_TM = np.stack(chosen) if chosen else np.zeros((0, BANDS), np.uint8)
            return SoundColumns(self._count - count, levels_TM, self._rate, self._end, *self._level())

    def _level(self) -> tuple[float, float, float, float]:
        last = [column for column in islice(reversed(self._columns), _LEVEL_COLUMNS) if column is not _DARK]
        if not last:
            return FLOOR_DB, FLOOR_DB, 0.0, 0.0
        bands_M = np.mean([10 ** (column.levels_M * (STEP_DB / 10)) for column in last], axis=0)
        return (
            _decibels(float(np.mean([column.mean_square for column in last]))),
            _decibels(max(column.peak for column in last) ** 2),
            float(np.mean([column.clipped for column in last])),
            float(centres_hz(self._rate)[int(np.argmax(bands_M))]),
        )

    def _draw(self, samples_CS: Float32, count: int) -> None:
        """Two frames per column, each of at least half a column."""
        hop = samples_CS.shape[1] // count // 2
        size = 1 << (hop - 1).bit_length()
        lacking = size - hop - self._tail_CS.shape[1]
        before_CS = np.pad(self._tail_CS, ((0, 0), (max(0, lacking), 0)))
        heard_CS = np.concatenate([before_CS, samples_CS], axis=1)
        self._tail_CS = heard_CS[:, heard_CS.shape[1] - (size - hop) :].copy()
        window_N, filters_FM = _window(size), _filters(self._rate, size)
        frames_CTN = sliding_window_view(heard_CS, size, axis=1)[:, ::hop][:, : 2 * count]
        spectrum_CTF = np.fft.rfft(frames_CTN * window_N, axis=-1)
        power_TF = np.mean(spectrum_CTF.real**2 + spectrum_CTF.imag**2, axis=0)
        bands_TM = (power_TF @ filters_FM).reshape(-1, 2, BANDS).mean(axis=1)
        levels_TM = 10 * np.log10(np.maximum(bands_TM, 1e-30))
        bytes_TM = np.clip(np.rint((levels_TM - FLOOR_DB) / STEP_DB), 0, 255).astype(np.uint8)
        columns_CTN = samples_CS[:, : 2 * hop * count].reshape(len(samples_CS), count, -1)
        squares_T = np.mean(np.square(columns_CTN, dtype=np.float64), axis=(0, 2))
        heights_CTN = np.abs(columns_CTN)
        peaks_T, clipped_T = heights_CTN.max(axis=(0, 2)), (heights_CTN >= FULL_SCALE).mean(axis=(0, 2))
        for row in range(count):
            self._columns.append(
                _Measured(bytes_TM[row], float(squares_T[row]), float(peaks_T[row]), float(clipped_T[row]))
            )
        self._count += count


@lru_cache(maxsize=8)
def centres_hz(sample_rate: int) -> Float64:
    """(BANDS,) frequencies of the bands of a picture."""
    return slaney_hz(np.linspace(0.0, slaney_mel(sample_rate / 2), BANDS + 2))[1:-1]


@lru_cache(maxsize=8)
def _window(size: int) -> Float64:
    """Periodic Hann window, scaled so that the powers of all bins together are the mean square of the samples."""
    window_N = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return np.asarray(window_N * np.sqrt(2 / (size * np.sum(window_N**2))))


@lru_cache(maxsize=8)
def _filters(sample_rate: int, size: int) -> Float64:
    """Triangles of height 1, so that bands hold the power within them."""
    filters_FM = slaney_bands(sample_rate, size, BANDS)
    return np.asarray(filters_FM / np.maximum(filters_FM.max(axis=0), 1e-30))


def _decibels(power: float) -> float:
    return max(FLOOR_DB, 10 * float(np.log10(max(power, 1e-30))))

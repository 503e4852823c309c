"""What all normal recordings did in each band: the quietest, the typical and the loudest of like moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from harken.embeddings.sketch import STEP_DB, Sketch, sketch_db, sketch_steps

Float32 = NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)

#: a level is common to clip and normal recordings where it is within so many steps of what they did
_TOLERANCE = round(1.0 / STEP_DB)
#: neighbouring bands, about half an octave, that must agree before one is named for a faint difference
FAINT_BANDS = 7
#: columns by which recordings are brought to a common level
_FEW_COLUMNS = 20
#: a shift that serves this share of the cells that the best serves, and more than any within so many steps above it
_SERVED, _DISTINCT = 0.5, 6


@dataclass(frozen=True, eq=False)
class Envelope:
    """Levels in dB of like moments of all normal recordings.

    lowest_BC, middle_BC, highest_BC: (bands, columns) minimum, median and maximum over the recordings, whose columns
    are sorted within each band: machines do not run in step, so the loudest moment is compared with the loudest and
    the quietest with the quietest. count: of recordings; segments: whether
    these are segments of longer ones. aligned: whether levels were brought to a common one first.
    level_NB, motion_NB: mean and standard deviation over the columns of each recording.
    """

    lowest_BC: Float32
    middle_BC: Float32
    highest_BC: Float32
    level_NB: Float32
    motion_NB: Float32
    count: int
    aligned: bool
    segments: bool = False

    @classmethod
    def of(cls, sketches_NBC: Sequence[Sketch], *, aligned: bool, segments: bool = False) -> Self:
        """aligned: whether loudness is to be ignored, since the level of clips was normalised."""
        count = len(sketches_NBC)
        columns = max(sketch.shape[1] for sketch in sketches_NBC)
        level_NB = np.array([sketch_db(sketch).mean(axis=1) for sketch in sketches_NBC])
        motion_NB = np.array([sketch_db(sketch).std(axis=1) for sketch in sketches_NBC])
        # Recordings last: their levels are then sorted side by side in memory.
        sorted_BCN = np.stack([_stretched(np.sort(sketch, axis=1), columns) for sketch in sketches_NBC], axis=2)
        middle = count // 2
        if aligned:
            few_BCN = sorted_BCN[:, :: max(1, columns // _FEW_COLUMNS)].astype(np.int16)
            away_NR = (few_BCN - np.sort(few_BCN, axis=2)[..., middle, None]).reshape(-1, count).T
            # In whole steps, so that the arrays stay small.
            shift_N = np.rint(np.median(np.ascontiguousarray(away_NR), axis=1)).astype(np.int16)
            sorted_BCN = np.clip(sorted_BCN - shift_N, 0, 255).astype(np.uint8)
            level_NB -= shift_N[:, None] * np.float32(STEP_DB)
        sorted_BCN.sort(axis=2)
        return cls(
            lowest_BC=sketch_db(sorted_BCN[..., 0]),
            middle_BC=sketch_db(sorted_BCN[..., middle]),
            highest_BC=sketch_db(sorted_BCN[..., -1]),
            level_NB=level_NB,
            motion_NB=motion_NB,
            count=count,
            aligned=aligned,
            segments=segments,
        )

    @cached_property
    def usual_level_2B(self) -> NDArray[np.floating]:
        """Mean and standard deviation over the recordings of their smoothed levels."""
        return _mean_and_deviation(smoothed(self.level_NB))

    @cached_property
    def usual_band_2B(self) -> NDArray[np.floating]:
        """As `usual_level_2B`, of how far each band is above its neighbours."""
        return _mean_and_deviation(self.level_NB - smoothed(self.level_NB))

    @cached_property
    def usual_motion_2B(self) -> NDArray[np.floating]:
        """As `usual_level_2B`, of the standard deviation over columns."""
        return _mean_and_deviation(smoothed(self.motion_NB))

    def stretched(self, columns: int) -> tuple[Float32, Float32, Float32]:
        """Lowest, middle and highest (bands, columns) for a clip of another number of columns."""
        return (
            _stretched(self.lowest_BC, columns),
            _stretched(self.middle_BC, columns),
            _stretched(self.highest_BC, columns),
        )

    @cached_property
    def _steps_3BC(self) -> NDArray[np.int16]:
        """Lowest, middle and highest in steps of sketches."""
        return sketch_steps(np.stack([self.lowest_BC, self.middle_BC, self.highest_BC]))

    def common_shift(self, sorted_BC: Float32) -> float:
        """Level in dB by which a clip stands above the normal recordings where it sounds as they do; 0 if not aligned.

        sorted_BC: (bands, columns) of a sketch in dB, sorted within each band. A shift that brings the most of it
        between the lowest and the highest of the normal recordings: a loud sound in the clip, by which the level of all
        else is lowered when the clip's is normalised, has no part in it. Of several such shifts that serve at least
        half as many cells as the best, the lowest: a fault adds sound more often than it takes it away.
        """
        if not self.aligned:
            return 0.0
        lowest_BC, middle_BC, highest_BC = (_stretched(steps_BC, sorted_BC.shape[1]) for steps_BC in self._steps_3BC)
        steps_BC = sketch_steps(sorted_BC)
        first = (steps_BC - highest_BC - _TOLERANCE).ravel()
        last = (steps_BC - lowest_BC + _TOLERANCE).ravel()
        lowest = int(first.min())
        opened = np.bincount(first - lowest, minlength=int(last.max()) - lowest + 2)
        closed = np.bincount(last + 1 - lowest, minlength=len(opened))
        within = np.cumsum(opened - closed)
        most_ahead = sliding_window_view(np.pad(within, (0, _DISTINCT)), _DISTINCT + 1).max(axis=1)
        best = int(np.argmax((within >= _SERVED * within.max()) & (within >= most_ahead))) + lowest
        common = (first <= best) & (best <= last)
        # The median of few different numbers is counted faster than sorted.
        apart = (steps_BC - middle_BC).ravel()[common]
        least = int(apart.min())
        below = np.cumsum(np.bincount(apart - least))
        middles = np.searchsorted(below, [(len(apart) - 1) // 2, len(apart) // 2], side="right")
        return STEP_DB * (least + float(middles.mean()))


def smoothed(levels_NB: Float32) -> Float32:
    """(..., bands), each the mean of `FAINT_BANDS`."""
    return np.asarray(uniform_filter1d(levels_NB, FAINT_BANDS, axis=-1))


def _mean_and_deviation(values_NB: Float32) -> NDArray[np.floating]:
    return np.stack([values_NB.mean(axis=0), values_NB.std(axis=0)])


def _stretched(sorted_BC: NDArray[Number], columns: int) -> NDArray[Number]:
    """(bands, columns) sorted levels at another number of quantiles; the lowest and highest stay among them."""
    if sorted_BC.shape[1] == columns:
        return sorted_BC
    place_C = np.rint(np.linspace(0, sorted_BC.shape[1] - 1, columns)).astype(int)
    return sorted_BC[:, place_C]

"""Mean and level of a recording's channels, which several steps need, computed once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: an offset below this share of the RMS of what remains is that of low-pitched sound in a finite recording, and stays
LEAST_OFFSET = 2e-3


def level_dbfs(samples: Float32) -> float:
    """RMS level in dB relative to a full-scale square wave; -inf for digital silence."""
    return _dbfs(float(np.mean(np.square(samples, dtype=np.float64))))


def means(samples_CS: Float32) -> Float64:
    """(channels,) mean of the samples: the offset of the converter, or gravity, which is not sound."""
    return np.asarray(samples_CS.mean(axis=1, dtype=np.float64))


class Moments:
    """Of (channels, samples); channels that are not listened to may be broken."""

    def __init__(self, samples_CS: Float32) -> None:
        self.samples_CS = samples_CS

    @cached_property
    def mean_C(self) -> Float64:
        """See `means`."""
        with np.errstate(invalid="ignore", over="ignore"):
            return means(self.samples_CS)

    @cached_property
    def mean_square_C(self) -> Float64:
        """(channels,) mean of the squares."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(np.square(self.samples_CS, dtype=np.float64).mean(axis=1))

    @property
    def deviation_C(self) -> Float64:
        """(channels,) standard deviation. Squares of float32 are exact in float64, so little cancels."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.sqrt(np.maximum(self.mean_square_C - self.mean_C**2, 0.0))

    @property
    def without_offset(self) -> Moments:
        """Those of the samples without the mean of each channel, where it is at least `LEAST_OFFSET` of the deviation.

        These, where no channel has such a mean.
        """
        return self._centred or self

    @cached_property
    def _centred(self) -> Moments | None:
        """None for these: an object that holds itself keeps its samples until garbage is looked for."""
        with np.errstate(invalid="ignore", over="ignore"):
            matters_C = (np.abs(self.mean_C) >= LEAST_OFFSET * self.deviation_C) & np.isfinite(self.mean_C)
        if not matters_C.any():
            return None
        mean_C = np.where(matters_C, self.mean_C, 0.0).astype(np.float32)
        return Moments(self.samples_CS - mean_C[:, None])

    @cached_property
    def level_db(self) -> float:
        """`level_dbfs` of all channels together."""
        # The bits of a sum depend on what is summed together.
        return _dbfs(float(self.mean_square_C[0])) if len(self.samples_CS) == 1 else level_dbfs(self.samples_CS)


def _dbfs(mean_square: float) -> float:
    return float(10 * np.log10(mean_square)) if mean_square > 0 else float("-inf")

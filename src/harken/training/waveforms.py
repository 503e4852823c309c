"""Decoded waveforms that are kept between the epochs of a training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

#: memory for decoded waveforms, of all worker processes of a training together
QUOTA_BYTES = 2**30
#: what samples of 16-bit recordings are multiples of
_STEP = np.float32(2.0**-15)


class KeptWaveforms:
    """Waveforms by key, up to `quota_bytes`; those that come first stay.

    Every epoch asks for each clip once, in a new order: which of them are kept does not matter, and none is worth being
    replaced by another. Samples that are multiples of 2^-15, as of 16-bit recordings, are kept in half of the memory.
    """

    def __init__(self, quota_bytes: int) -> None:
        self.left_bytes = quota_bytes
        self._kept: dict[int, NDArray[np.int16] | Float32] = {}

    def get(self, key: int, read: Callable[[], Float32]) -> Float32:
        """What `read` gives (an error is not kept), to the last bit; not to be changed in place."""
        kept = self._kept.get(key)
        if kept is not None:
            wave = kept.astype(np.float32, copy=False)
            return wave * _STEP if kept.dtype == np.int16 else wave
        wave_S = read()
        compact = _compact(wave_S)
        if compact.nbytes <= self.left_bytes:
            self.left_bytes -= compact.nbytes
            self._kept[key] = compact
        return wave_S


def _compact(wave_S: Float32) -> NDArray[np.int16] | Float32:
    if not len(wave_S) or float(np.abs(wave_S).max()) > 1:
        return wave_S
    steps_S = wave_S / _STEP
    whole_S = np.clip(steps_S, -(2**15), 2**15 - 1).astype(np.int16)
    # Negative zeros are none of 16 bits.
    return whole_S if np.array_equal(whole_S, steps_S) and not np.signbit(wave_S[wave_S == 0]).any() else wave_S

"""Frame-level features of a clip -> one vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

#: lags of `variation`, in frames
LAGS = (1, 2, 4)


def _mean(frames_TD: Float32) -> Float32:
    return frames_TD.mean(axis=0, dtype=np.float64).astype(np.float32)


def _std(frames_TD: Float32) -> Float32:
    return frames_TD.std(axis=0, dtype=np.float64).astype(np.float32)


def _max(frames_TD: Float32) -> Float32:
    return np.asarray(frames_TD.max(axis=0))


def _variation(frames_TD: Float32) -> Float32:
    """First-order structure function: mean |x(t + lag) - x(t)| for each lag.

    It hears how fast a band fluctuates (roughness, rattle, modulation), which mean and deviation do not,
    and does not change with the recording level. A clip with fewer frames than a lag reads zero there.
    """
    parts = []
    for lag in LAGS:
        if len(frames_TD) > lag:
            parts.append(np.abs(frames_TD[lag:] - frames_TD[:-lag]).mean(axis=0, dtype=np.float64))
        else:
            parts.append(np.zeros(frames_TD.shape[1]))
    return np.concatenate(parts).astype(np.float32)


_POOLINGS = {"mean": _mean, "std": _std, "max": _max, "variation": _variation}


def list_poolings() -> tuple[str, ...]:
    """Names that `pool` takes; several are joined by `+`, as in `mean+std`."""
    return tuple(_POOLINGS)


def check_pooling(pooling: str) -> None:
    """Raise ValueError, naming the unknown part, unless `pool` understands `pooling`."""
    for part in pooling.split("+"):
        if part not in _POOLINGS:
            raise ValueError(f"unknown pooling {part!r}; there are {', '.join(_POOLINGS)}")


def pool(frames_TD: Float32, pooling: str) -> Float32:
    """(frames, dimensions) -> (P,), the named statistics over time one after the other, each in order of D."""
    check_pooling(pooling)
    if len(frames_TD) == 0:
        raise ValueError("no frames to pool")
    return np.concatenate([_POOLINGS[part](frames_TD) for part in pooling.split("+")])

"""Channel selection."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harken.audio.cancel import cancel, subtract
from harken.audio.moments import level_dbfs
from harken.core.errors import AudioError

Float32 = NDArray[np.float32]

#: all channels, one of two, or the near one after noise cancellation with the far one
Microphones = Literal["all", "near", "far", "cancelled", "subtracted"]

#: level of the residual relative to the near microphone, in dB, below which both channels hold the same sound
IDENTICAL_DB = -50.0


def choose_channels(
    samples_CS: Float32, sample_rate: int, microphones: Microphones, name: str | Path | None = None
) -> Float32:
    """Select channels: (channels, samples) -> (channels or 1, samples) float32.

    microphones: `all` channels; `near`, the first; `far`, the second of two; `cancelled` and `subtracted`, see
    `audio.cancel`. name: the file in error messages. Raises AudioError if the selection needs two channels and the
    recording has another number, and if cancellation leaves nothing because both hold the same sound.
    """
    if microphones == "all":
        return samples_CS
    if microphones == "near":
        return samples_CS[:1]
    channels = len(samples_CS)
    if channels != 2:
        raise AudioError(
            f"has {channels} channel{'s' * (channels != 1)}; {microphones!r} needs two, near and far",
            file=name,
            next_step="Record with two microphones, or use all channels or the near one",
        )
    if microphones == "far":
        return samples_CS[1:]
    residual_CS = (cancel if microphones == "cancelled" else subtract)(samples_CS, sample_rate)
    if level_dbfs(residual_CS) - level_dbfs(samples_CS[:1]) < IDENTICAL_DB:
        raise AudioError(
            "has the same sound in both channels: cancellation leaves nothing",
            file=name,
            next_step="Check that the far microphone is connected, or use the near one",
        )
    return residual_CS

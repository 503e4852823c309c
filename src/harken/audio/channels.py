"""Which channels of a recording are listened to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harken.audio.cancel import cancel, subtract
from harken.audio.quality import level_dbfs
from harken.core.errors import AudioError

Float32 = NDArray[np.float32]

#: every channel, one of two, or the near one less the noise that the far one hears
Microphones = Literal["all", "near", "far", "cancelled", "subtracted"]

#: residual of a cancellation relative to the near microphone, in dB, below which nothing of a machine is in it
SAME_SOUND_DB = -50.0


def choose_channels(
    samples_CT: Float32, sample_rate: int, microphones: Microphones, name: str | Path | None = None
) -> Float32:
    """(channels, samples) -> the channels that are listened to, (all or 1, samples) float32.

    `all` channels; `near`, the first; `far`, the second of two; `cancelled` and `subtracted`, see `audio.cancel`.
    Raises AudioError, about the file `name`, where two channels are needed and there is another number of them, and
    where both hold the same sound, of which cancellation leaves nothing.
    """
    if microphones == "all":
        return samples_CT
    if microphones == "near":
        return samples_CT[:1]
    channels = len(samples_CT)
    if channels != 2:
        raise AudioError(
            f"has {channels} channel{'s' * (channels != 1)}; {microphones!r} needs two, near and far",
            file=name,
            next_step="Record with two microphones, or listen to all or the near one",
        )
    if microphones == "far":
        return samples_CT[1:]
    residual_CT = (cancel if microphones == "cancelled" else subtract)(samples_CT, sample_rate)
    if level_dbfs(residual_CT) - level_dbfs(samples_CT[:1]) < SAME_SOUND_DB:
        raise AudioError(
            "has the same sound in both channels: nothing is left when one is taken from the other",
            file=name,
            next_step="Check that the far microphone is connected, or listen to the near one",
        )
    return residual_CT

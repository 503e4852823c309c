"""Shifts in time and level."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Float32 = NDArray[np.float32]


class Shift(BaseModel):
    """A circular shift by any part of the clip, and a gain.

    time: largest shift as a part of the clip, 1 being any. gain_db: the gain is drawn evenly from -gain_db to gain_db.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: Annotated[float, Field(ge=0, le=1)] = 1.0
    gain_db: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def apply(self, wave_S: Float32, rng: np.random.Generator) -> Float32:
        """(samples,) -> (samples,) float32, some of its end now its beginning; nothing is clipped."""
        places = int(rng.uniform(0, self.time) * len(wave_S))
        gain = 10 ** (rng.uniform(-self.gain_db, self.gain_db) / 20)
        return (np.roll(wave_S, places) * np.float32(gain)).astype(np.float32)

"""SpecAugment: masks along time and frequency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

#: bins of the spectrogram that `frequency` is about
BINS = 128
_Count = Annotated[int, Field(ge=0)]


class SpecAugment(BaseModel):
    """Masks on normalised spectrograms (Park et al., Interspeech 2019, sec. 2, without time warping).

    In the form of AST and of the reports: the width of a mask is drawn evenly from [0, F] and rounded down, its start
    evenly from where it fits, and what it covers is set to 0, the mean of a normalised spectrogram.

    time, frequency: F, the largest widths, in frames and in bins of a spectrogram of 128, the filter bank of AST, BEATs
    and EAT; of another number of bins the same share of the spectrum: 40 of Dasheng's 64 for 80 of 128. An axis that is
    shorter takes the place of F, so that some of every spectrogram is left. time_masks, frequency_masks: how many,
    which may overlap. probability: of a clip to be masked at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: _Count = 80
    frequency: _Count = 80
    time_masks: _Count = 1
    frequency_masks: _Count = 1
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0

    def for_batch(self, rngs: Sequence[np.random.Generator]) -> Callable[[Tensor], Tensor]:
        """(clips, frames, bins) -> the same, masked; to be used for the spectrograms of one batch.

        rngs: one per clip. Each call draws anew, so that branches of a network have different masks. Spectrograms of
        several bands a clip (clips * bands, frames, bins), the bands of a clip together, have masks of their own too.
        Raises ValueError without generators, and when called with a number of spectrograms that is no multiple.
        """
        if not rngs:
            raise ValueError("one generator for each clip, of at least one clip")

        def masked(x_BTF: Tensor) -> Tensor:
            import torch

            if len(x_BTF) % len(rngs):
                raise ValueError(f"{len(x_BTF)} spectrograms for {len(rngs)} clips")
            bands = len(x_BTF) // len(rngs)
            hidden_BT = np.zeros(x_BTF.shape[:2], dtype=bool)
            hidden_BF = np.zeros((x_BTF.shape[0], x_BTF.shape[2]), dtype=bool)
            for row in range(len(x_BTF)):
                rng = rngs[row // bands]
                # Drawn in any case, so that what is drawn next does not depend on it.
                chosen = rng.random() < self.probability
                time_T = _masks(x_BTF.shape[1], self.time, self.time_masks, rng)
                frequency_F = _masks(x_BTF.shape[2], self.frequency * x_BTF.shape[2] / BINS, self.frequency_masks, rng)
                if chosen:
                    hidden_BT[row], hidden_BF[row] = time_T, frequency_F
            time_BT1 = torch.from_numpy(hidden_BT).to(x_BTF.device)[:, :, None]
            frequency_B1F = torch.from_numpy(hidden_BF).to(x_BTF.device)[:, None]
            return x_BTF.masked_fill(time_BT1 | frequency_B1F, 0.0)

        return masked


def _masks(size: int, widest: float, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(size,) what `count` masks cover."""
    hidden_N = np.zeros(size, dtype=bool)
    for _ in range(count):
        width = int(rng.uniform(0, min(widest, size)))
        start = int(rng.integers(size - width + 1))
        hidden_N[start : start + width] = True
    return hidden_N

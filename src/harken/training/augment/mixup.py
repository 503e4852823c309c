"""Mixup with the flipped batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor


class Mixup(BaseModel):
    """x <- l x + (1 - l) flip(x), and the same of the labels (Zhang et al., ICLR 2018; with the batch in reverse order,
    each clip with probability 1/2 and l evenly from [0, 1], Wilkinghoff, ICASSP 2024).

    probability: of a clip to be mixed. alpha: l is drawn from Beta(alpha, alpha); 1 is evenly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def kept_shares(self, clips: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """(clips,) share l of the clip itself in each mix; 1 for clips that are not mixed."""
        chosen_B = rng.random(clips) < self.probability
        return np.where(chosen_B, rng.beta(self.alpha, self.alpha, clips), 1.0)


def one_hot(class_B: Tensor, classes: int) -> Tensor:
    """(clips,) indices -> (clips, classes) shares. ValueError for an index outside."""
    from torch.nn import functional as F

    if bool(((class_B < 0) | (class_B >= classes)).any()):
        raise ValueError(f"classes are 0 to {classes - 1}")
    return F.one_hot(class_B.long(), classes).float()


def mixup(
    x_BN: Tensor, shares_BC: Tensor, rng: np.random.Generator, settings: Mixup = Mixup()
) -> tuple[Tensor, Tensor]:
    """Waveforms (clips, samples), or spectrograms (clips, frames, bins), and shares of classes, mixed. The shares of a
    clip still sum to one.

    Of padded clips, `Mixup.kept_shares`, `mixed` and `mixed_lengths` do the same. Raises ValueError for different
    numbers of clips and labels.
    """
    if len(shares_BC) != len(x_BN):
        raise ValueError(f"{len(x_BN)} clips for {len(shares_BC)} labels")
    part_B = settings.kept_shares(len(x_BN), rng)
    return mixed(x_BN, part_B), mixed(shares_BC, part_B)


def mixed(x_BN: Tensor, part_B: NDArray[np.float64]) -> Tensor:
    """(clips, ...) with the batch in reverse order; part_B: see `Mixup.kept_shares`. ValueError for another number."""
    import torch

    if len(part_B) != len(x_BN):
        raise ValueError(f"{len(part_B)} parts for {len(x_BN)} clips")
    part_BN = torch.from_numpy(part_B).to(x_BN).reshape(-1, *[1] * (x_BN.ndim - 1))
    return torch.where(part_BN == 1, x_BN, part_BN * x_BN + (1 - part_BN) * x_BN.flip(0))


def mixed_lengths(lengths_B: Tensor, part_B: NDArray[np.float64]) -> Tensor:
    """(clips,) valid samples of mixed clips that are padded with zeros: those of the longer of the two."""
    import torch

    whole_B = torch.from_numpy(part_B == 1).to(lengths_B.device)
    return torch.where(whole_B, lengths_B, torch.maximum(lengths_B, lengths_B.flip(0)))

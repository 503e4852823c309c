"""Statistics exchange (StatEx): a spectrogram with the levels and swings of another clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harken.training.augment.exchange import exchanged_clips, tripled_shares

if TYPE_CHECKING:
    from torch import Tensor

# A bin whose deviation is below this part of its mean is constant but for rounding, and has no course to carry over.
_LEAST = 1e-5


class StatEx(BaseModel):
    """Chen et al., "An effective anomalous sound detection method based on representation learning with simulated
    anomalies", ICASSP 2023; over time only, as Wilkinghoff does (ICASSP 2024, arXiv 2312.09578).

        kept:        x,                                            y = [y, 0, 0]
        exchanged:   (x - mean(x)) / std(x) * std(x') + mean(x'),  y = [0, y / 2, flip(y) / 2]

    with mean and deviation of each frequency over time; x': the clip at its place in the batch in reverse order. The
    middle of an odd number of clips is always kept.

    probability: of a clip to be exchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5


def statex(
    x_BTF: Tensor, shares_BC: Tensor, rng: np.random.Generator, settings: StatEx = StatEx()
) -> tuple[Tensor, Tensor]:
    """(clips, frames, bins) and (clips, C) shares of classes -> the same, exchanged, and (clips, 3 C).

    Raises ValueError for different numbers of spectrograms and labels.
    """
    import torch

    clips = len(shares_BC)
    if len(x_BTF) != clips:
        raise ValueError(f"{len(x_BTF)} spectrograms for {clips} labels")
    exchanged_B = torch.from_numpy(exchanged_clips(clips, settings.probability, rng)).to(shares_BC.device)
    deviation_B1F, mean_B1F = torch.std_mean(x_BTF, dim=1, correction=0, keepdim=True)
    varies_B1F = deviation_B1F > _LEAST * mean_B1F.abs()
    course_BTF = torch.where(varies_B1F, (x_BTF - mean_B1F) / torch.where(varies_B1F, deviation_B1F, 1.0), 0.0)
    foreign_BTF = course_BTF * deviation_B1F.flip(0) + mean_B1F.flip(0)
    return torch.where(exchanged_B[:, None, None], foreign_BTF, x_BTF), tripled_shares(
        shares_BC, exchanged_B, kept_share=0.5
    )

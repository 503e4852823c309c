"""Feature exchange (FeatEx): a network learns to recognise branches of different clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harken.training.augment.exchange import exchanged_clips, tripled_shares

if TYPE_CHECKING:
    from torch import Tensor


class FeatEx(BaseModel):
    """Wilkinghoff, "Self-supervised learning for anomalous sound detection", ICASSP 2024 (arXiv 2312.09578).

        kept:        e = [e_1, e_2 .. e_n],               y = [y, 0, 0]
        exchanged:   e = [e_1, flip(e_2) .. flip(e_n)],   y = [0, y / n, (n - 1) flip(y) / n]

    with n = 2 branches there; flip: the batch in reverse order. The classes are three times as many: those of whole
    clips, those of first branches and those of the others. The middle of an odd number of clips is always kept.

    probability: of a clip to be exchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5


def featex(
    branches: Sequence[Tensor], shares_BC: Tensor, rng: np.random.Generator, settings: FeatEx = FeatEx()
) -> tuple[list[Tensor], Tensor]:
    """(clips, D_i) embedding of each branch and (clips, C) shares of classes -> the same, exchanged, and (clips, 3 C).

    Gradients flow to where embeddings come from. Raises ValueError for fewer than two branches and for branches and
    labels of different numbers of clips.
    """
    import torch

    count, clips = len(branches), len(shares_BC)
    if count < 2:
        raise ValueError("FeatEx needs two branches")
    if any(len(branch_BD) != clips for branch_BD in branches):
        raise ValueError(f"branches of {', '.join(str(len(b)) for b in branches)} clips for {clips} labels")
    exchanged_B = torch.from_numpy(exchanged_clips(clips, settings.probability, rng)).to(shares_BC.device)
    later = [torch.where(exchanged_B[:, None], branch_BD.flip(0), branch_BD) for branch_BD in branches[1:]]
    return [branches[0], *later], tripled_shares(shares_BC, exchanged_B, kept_share=1 / count)

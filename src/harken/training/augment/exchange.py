"""What FeatEx and StatEx have in common: which clips are exchanged, and the classes of what they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def exchanged_clips(clips: int, probability: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(clips,) whether a clip takes a part of its partner, the clip at its place in the batch in reverse order."""
    exchanged_B = rng.random(clips) < probability
    # The one in the middle is its own partner: exchanged or not it is the same, so its class must be too.
    if clips % 2:
        exchanged_B[clips // 2] = False
    return exchanged_B


def tripled_shares(shares_BC: Tensor, exchanged_B: Tensor, kept_share: float) -> Tensor:
    """(clips, C) -> (clips, 3 C): [y, 0, 0] of a clip that is kept, else [0, s y, (1 - s) flip(y)].

    exchanged_B: as `exchanged_clips` says. kept_share: s, the share of an exchanged clip's original content.
    """
    import torch

    none_BC = torch.zeros_like(shares_BC)
    kept_BE = torch.cat([shares_BC, none_BC, none_BC], dim=1)
    mixed_BE = torch.cat([none_BC, kept_share * shares_BC, (1 - kept_share) * shares_BC.flip(0)], dim=1)
    return torch.where(exchanged_B[:, None], mixed_BE, kept_BE)

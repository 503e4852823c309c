"""Inverse block masks: of a grid of patches a few blocks are kept, and all others are masked.

Baevski et al., "Efficient Self-supervised Learning with Contextualized Target Representations for Vision, Speech and
Language" (data2vec 2.0), ICML 2023, Sec. 3.2; EAT, Sec. 3.2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bools = NDArray[np.bool_]


class Masks(NamedTuple):
    """Which patches a student sees, of R rows: one for each sequence and clone.

    masked_RN: bool, what it does not see; the same number in each row. keep_RK: the patches that it sees, in the order
    in which they enter. restore_RN: for each patch its place among those that it sees, then those that it does not.
    """

    masked_RN: Tensor
    keep_RK: Tensor
    restore_RN: Tensor

    def to(self, device: torch.device) -> Masks:
        """On a device."""
        return Masks(*(tensor.to(device) for tensor in self))


def kept_patches(patches: int, masked: float) -> int:
    """Number of patches that a student sees; masked: share that it does not. At least one."""
    # As the reference rounds it: 102 of 512 at 0.8.
    return max(1, int(patches * (1 - masked)))


def inverse_block_mask(
    steps: int, rows: int, rng: np.random.Generator, *, masked: float = 0.8, adjust: float = 0.07, block: int = 5
) -> Bools:
    """(steps * rows,) True where masked, of a grid of patches of so many times and frequencies, frequency fastest.

    Blocks of `block` x `block` patches around random centres are kept, int(patches * (1 - masked + adjust) / block^2)
    of them and one at least, cut at the borders; then single patches at random are kept or masked until exactly
    `kept_patches` are kept. Raises ValueError for shares and blocks that leave nothing to keep or to mask.
    """
    patches = steps * rows
    if not 0 < masked < 1 or not 0 <= adjust <= masked or block < 1 or block % 2 == 0:
        raise ValueError(
            f"{masked:g} of the patches, adjusted by {adjust:g}, cannot be masked but for blocks of {block}"
        )
    keep = kept_patches(patches, masked)
    if keep >= patches:
        raise ValueError(f"of {patches} patches none would be masked")
    blocks = max(1, int(patches * (1 - masked + adjust) / block**2))
    kept_TR = np.zeros((steps, rows), dtype=bool)
    reach = block // 2
    for centre in rng.integers(patches, size=blocks):
        step, row = divmod(int(centre), rows)
        kept_TR[max(0, step - reach) : step + reach + 1, max(0, row - reach) : row + reach + 1] = True
    kept_N = kept_TR.reshape(-1)
    surplus = int(kept_N.sum()) - keep
    # Of those that are kept some are masked, or of those that are masked some are kept.
    changed_N = rng.choice(np.flatnonzero(kept_N == (surplus > 0)), abs(surplus), replace=False)
    kept_N[changed_N] = surplus < 0
    return ~kept_N


def as_masks(masked_RN: Bools) -> Masks:
    """What networks need of masks, each with the same number of masked patches."""
    order_RN = np.argsort(masked_RN, axis=1, kind="stable")
    kept = int((~masked_RN[0]).sum())
    return Masks(
        torch.from_numpy(masked_RN),
        torch.from_numpy(order_RN[:, :kept].copy()),
        torch.from_numpy(np.argsort(order_RN, axis=1, kind="stable")),
    )

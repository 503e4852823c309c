"""Less memory for more time: what is inside of an encoder's blocks is computed again on the way back."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from harken.encoders.spectrogram_net import SpectrogramNet


def recompute_blocks(*nets: SpectrogramNet) -> None:
    """Keep only the inputs of the blocks of these networks for the backward pass (Chen et al., arXiv 1604.06174).

    Random numbers are drawn anew as they were; the gradients are those of the network as it was.
    """
    for net in nets:
        for block in net.blocks_in_order:
            # The instance's attribute hides the method of its class.
            block.forward = partial(_kept, block.forward)  # type: ignore[method-assign]


def _kept(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)

"""Networks over standardised spectrograms."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StandardisedNet(nn.Module):
    """mean, deviation: of the spectrograms that are learned, which have both taken out; part of its weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def standardised(self, spectrogram_BFM: Tensor) -> Tensor:
        """(clips, frames, bins) -> (clips, 1, bins, frames)."""
        return ((spectrogram_BFM - self.mean) / self.deviation).transpose(1, 2)[:, None]

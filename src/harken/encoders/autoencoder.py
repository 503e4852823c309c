"""The autoencoder of the DCASE Task 2 baseline (Harada et al., EUSIPCO 2023, section III): the network alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: of batch normalisation
EPSILON = 1e-3


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, momentum=0.01, eps=EPSILON), nn.ReLU()]


def _wide(hidden: int) -> list[nn.Module]:
    return [layer for _ in range(3) for layer in _block(hidden, hidden)]


class Autoencoder(nn.Module):
    """`dimensions` -> 128 x 4 -> 8 -> 128 x 4 -> `dimensions`, dense; 267,928 parameters for 640.

    Every layer but the last is followed by batch normalisation and ReLU, the bottleneck too. Weights are drawn as
    PyTorch does by default, from `seed` alone: the global generator is neither read nor moved.
    """

    def __init__(self, dimensions: int = 640, hidden: int = 128, bottleneck: int = 8, seed: int = 0) -> None:
        super().__init__()
        self.dimensions = dimensions
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            # In this order: it is the order of the draws.
            self.encoder = nn.Sequential(*_block(dimensions, hidden), *_wide(hidden), *_block(hidden, bottleneck))
            self.decoder = nn.Sequential(*_block(bottleneck, hidden), *_wide(hidden), nn.Linear(hidden, dimensions))

    def forward(self, x_BX: Tensor) -> Tensor:
        """(vectors, dimensions) -> their reconstruction."""
        reconstruction_BX: Tensor = self.decoder(self.encoder(x_BX))
        return reconstruction_BX

"""Parameter-efficient fine-tuning: low-rank adapters, an adaptation module, a freezing schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from harken.encoders.torch_encoder import TorchEncoder
from harken.training.frames import masked_max, masked_mean, valid_frames
from harken.training.heads import dense_layers
from harken.training.lora import add_lora_to, has_lora


def add_lora(encoder: TorchEncoder, rank: int = 64, alpha: float | None = None, dropout: float = 0.0) -> None:
    """Add low-rank adapters to the `adapter_targets` of an encoder, in place; its other parameters are frozen.

        y = W x + b + (alpha / rank) B A x,    A (rank, inputs) random, B (outputs, rank) zero at first

    Hu et al., "LoRA", ICLR 2022. Rank 64 on q, v and out is NWPU's LBEATs (sec. 2.1) and LEAT: 3,538,944 parameters
    for a network of 12 blocks of width 768, and 0.04 M more in its classifier. They give no alpha; the default is the
    rank, a factor of one. Where the three projections are one module, keys are adapted too, and share the narrow side
    of the adapter with them, unless the encoder splits it (`prepare_for_adapters`).

    A is drawn from torch's global generator. Raises ValueError for a network without such projections and for one that
    already has adapters.
    """
    net = encoder.module
    if encoder.adapter_targets is None:
        raise ValueError(f"{encoder.name} has no projections for adapters")
    if has_lora(net):
        raise ValueError("the network already has adapters")
    encoder.prepare_for_adapters()
    add_lora_to(net, encoder.adapter_targets, rank, alpha, dropout)


class AdaptationModule(nn.Module):
    """Linear and pooling layers over the last layers of an encoder (Unisound, DCASE 2025 Task 2, sec. 2.3).

        z_l = relu(W_l x_l + b_l) for each token of layer l,    p = [mean_t z_1, max_t z_1, mean_t z_2, ...]
        embedding = dense(relu(V p + c))

    The report mentions "several linear and pooling layers" without details; the choice is ours.

    dimensions: D, of tokens. layers: number of layers. hidden: outputs of W_l and V. dims: of the dense layers, as
    for `PoolingHead`. cls_tokens: of the encoder; not pooled. Raises ValueError for sizes below one.
    """

    def __init__(
        self, dimensions: int, *, layers: int = 1, dims: Sequence[int] = (), cls_tokens: int = 0, hidden: int = 128
    ) -> None:
        super().__init__()
        if min(dimensions, layers, hidden) < 1:
            raise ValueError("dimensions, layers and hidden >= 1")
        self.cls_tokens = cls_tokens
        self.projections = nn.ModuleList(nn.Linear(dimensions, hidden) for _ in range(layers))
        self.mix = nn.Sequential(nn.Linear(2 * hidden * layers, hidden), nn.ReLU())
        self.dense = dense_layers(hidden, dims)
        self.output_dimensions = dims[-1] if dims else hidden

    def forward(self, tokens: Sequence[Tensor], valid_B: Tensor | None = None) -> Tensor:
        """(clips, tokens, D) of each layer -> (clips, output_dimensions); see `PoolingHead.forward`."""
        if len(tokens) != len(self.projections):
            raise ValueError(f"expected {len(self.projections)} layers, got {len(tokens)}")
        pooled = []
        for projection, tokens_BND in zip(self.projections, tokens, strict=True):
            frames_BTD = tokens_BND[:, self.cls_tokens :]
            lengths_B = None if valid_B is None else valid_B.to(frames_BTD.device) - self.cls_tokens
            # Padding may hold NaN, which would propagate to gradients.
            frames_BTD = frames_BTD.masked_fill(~valid_frames(frames_BTD, lengths_B), 0.0)
            z_BTH = torch.relu(projection(frames_BTD))
            pooled += [masked_mean(z_BTH, lengths_B), masked_max(z_BTH, lengths_B)]
        embedding_BE: Tensor = self.dense(self.mix(torch.cat(pooled, dim=1)))
        return embedding_BE


class Freezable(Protocol):
    """A model whose encoders can be frozen."""

    def set_encoders_learning(self, learning: bool) -> None:
        """Train the encoders, or freeze them."""
        ...


@dataclass(frozen=True)
class FreezeSchedule:
    """Encoders are frozen for the first `frozen_epochs`, then trained too (Unisound: two)."""

    frozen_epochs: int = 2

    def apply(self, model: Freezable, epoch: int) -> None:
        """Call it before each epoch; the first is epoch 1."""
        model.set_encoders_learning(epoch > self.frozen_epochs)

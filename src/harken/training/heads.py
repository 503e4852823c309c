"""Pooling heads: tokens of an encoder -> one embedding per clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from harken.training.attentive_pooling import AttentiveStatisticsPooling
from harken.training.frames import masked_mean

Pooling = Literal["mean", "cls", "attentive"]
Join = Literal["mean", "concatenate"]


class PoolingHead(nn.Module):
    """Layers joined per token, pooled over tokens, then up to two dense layers.

    pooling: "mean" of tokens other than class tokens (NWPU's BEATs); "cls", the class tokens themselves (THUEE's
        EAT and sub-band model); "attentive", weighted mean and deviation (THUEE's and SJTU-AITHU's BEATs).
    join: "mean" or "concatenate" the layers; the same for a single layer.
    dims: outputs of the dense layers, with a ReLU between them; the last is the dimension of the embedding. Without
        dense layers, the pooled vector is the embedding.

    dimensions: D, of a token. layers: number of layers. cls_tokens: of the encoder.
    hidden, context, batch_norm: bottleneck of the attention, whether it has a weight per dimension that depends on the
        clip's statistics too, and its batch normalisation; see `AttentiveStatisticsPooling`.
    Raises ValueError for "cls" without class tokens, more than two dense layers, and sizes below one.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        layers: int = 1,
        pooling: Pooling = "mean",
        join: Join = "concatenate",
        dims: Sequence[int] = (),
        cls_tokens: int = 0,
        hidden: int = 128,
        context: bool = True,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling) or join not in get_args(Join):
            raise ValueError(f"pooling is one of {get_args(Pooling)}, join one of {get_args(Join)}")
        if dimensions < 1 or layers < 1:
            raise ValueError("dimensions >= 1 and layers >= 1")
        if pooling == "cls" and cls_tokens < 1:
            raise ValueError("there is no class token to pool")
        self.pooling = pooling
        self.join = join
        self.layers = layers
        self.cls_tokens = cls_tokens
        joined = dimensions * (layers if join == "concatenate" else 1)
        self.attentive = (
            AttentiveStatisticsPooling(joined, hidden, context, batch_norm) if pooling == "attentive" else None
        )
        pooled = joined * {"mean": 1, "cls": cls_tokens, "attentive": 2}[pooling]
        self.dense = dense_layers(pooled, dims)
        self.output_dimensions = dims[-1] if dims else pooled

    def forward(self, tokens: Sequence[Tensor], valid_B: Tensor | None = None) -> Tensor:
        """(clips, tokens, D) of each layer -> (clips, output_dimensions).

        valid_B: number of valid leading tokens of each clip, including class tokens (default: all).
        Raises ValueError for another number of layers, and for a clip without valid tokens.
        """
        if len(tokens) != self.layers:
            raise ValueError(f"expected {self.layers} layers, got {len(tokens)}")
        joined_BND = torch.cat(list(tokens), dim=2) if self.join == "concatenate" else torch.stack(list(tokens)).mean(0)
        if self.pooling == "cls":
            pooled_BP = joined_BND[:, : self.cls_tokens].flatten(start_dim=1)
        else:
            frames_BTD = joined_BND[:, self.cls_tokens :]
            lengths_B = None if valid_B is None else valid_B.to(frames_BTD.device) - self.cls_tokens
            pool = masked_mean if self.attentive is None else self.attentive
            pooled_BP = pool(frames_BTD, lengths_B)
        embedding_BE: Tensor = self.dense(pooled_BP)
        return embedding_BE


def dense_layers(inputs: int, dims: Sequence[int]) -> nn.Sequential:
    """Up to two dense layers of `dims` outputs, a ReLU between them; nothing for none."""
    if len(dims) > 2 or any(size < 1 for size in dims):
        raise ValueError(f"at most two dense layers of one output or more, not {tuple(dims)}")
    layers: list[nn.Module] = []
    for size in dims:
        layers += [nn.ReLU(), nn.Linear(inputs, size)] if layers else [nn.Linear(inputs, size)]
        inputs = size
    return nn.Sequential(*layers)

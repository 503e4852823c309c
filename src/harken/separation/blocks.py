"""Blocks of SepReformer, on (clips, frames, features).

Shin, Lee, Kim and Park, "Separate and Reconstruct: Asymmetric Encoder-Decoder for Speech Separation", NeurIPS 2024,
arXiv 2406.05983, sections 3.2 and 3.3. Names of parameters are those of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: at first, blocks add next to nothing
LAYER_SCALE = 1e-5


class LayerScale(nn.Module):
    """A learned factor per feature."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((1, 1, features), LAYER_SCALE))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """x_BTD times the factors."""
        return x_BTD * self.layer_scale


class GatedFeedForward(nn.Module):
    """GCFN: a feed-forward network with a convolution over three frames and a gate; adds to its input."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.net1 = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, 6 * features))
        self.depthwise = nn.Conv1d(6 * features, 6 * features, 3, padding=1, groups=6 * features)
        self.net2 = nn.Sequential(nn.GLU(), nn.Dropout(dropout), nn.Linear(3 * features, features), nn.Dropout(dropout))
        self.Layer_scale = LayerScale(features)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(clips, frames, features), as the input."""
        y_BTD = self.depthwise(self.net1(x_BTD).mT).mT
        added: Tensor = self.Layer_scale(self.net2(y_BTD))
        return x_BTD + added


class RelativeAttention(nn.Module):
    """Attention of each frame to all, or of each source to all; does not add to its input."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.layer_norm = nn.LayerNorm(features)
        self.linear_q = nn.Linear(features, features)
        self.linear_k = nn.Linear(features, features)
        self.linear_v = nn.Linear(features, features)
        self.linear_out = nn.Linear(features, features)
        self.dropout = nn.Dropout(dropout)
        self.Layer_scale = LayerScale(features)

    def forward(self, x_BTD: Tensor, distances_RD: Tensor | None = None) -> Tensor:
        """distances_RD: see `distance_vectors`; None where order does not matter."""
        x_BTD = self.layer_norm(x_BTD)
        q_BHTD, k_BHTD, v_BHTD = (
            linear(x_BTD).reshape(*x_BTD.shape[:2], self.heads, -1).transpose(1, 2)
            for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        bias_BHTT = None
        if distances_RD is not None:
            bias_BHTT = _by_place(q_BHTD @ distances_RD.mT) / q_BHTD.shape[-1] ** 0.5
        dropout = self.dropout.p if self.training else 0.0
        y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=bias_BHTT, dropout_p=dropout)
        added: Tensor = self.Layer_scale(self.dropout(self.linear_out(y_BHTD.transpose(1, 2).flatten(2))))
        return added


def _by_place(products_BHTR: Tensor) -> Tensor:
    """(.., T, 2 T - 1) products by distance, the largest first, as (.., T, T) by frame and frame attended to.

    Row i needs columns T - 1 - i to 2 T - 2 - i, which begin 2 T - 2 numbers after those of row i - 1.
    """
    frames = products_BHTR.shape[-2]
    if frames == 1:
        return products_BHTR
    flat = products_BHTR.flatten(-2)[..., frames - 1 : frames - 1 + frames * (2 * frames - 2)]
    return flat.reshape(*flat.shape[:-1], frames, 2 * frames - 2)[..., :frames]


class Distances(nn.Module):
    """A learned vector per distance between two frames; distances beyond `most` have that of the largest."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__()
        self.most = most
        self.pe_k = nn.Embedding(2 * most, size)

    def forward(self, frames: int) -> Tensor:
        """(2 frames - 1, size): distance frames - 1 (attended to is earlier) first, 1 - frames last."""
        distance_R = torch.arange(frames - 1, -frames, -1, device=self.pe_k.weight.device)
        vectors: Tensor = self.pe_k(distance_R.clamp(-self.most, self.most - 1) + self.most)
        return vectors


class GlobalAttention(nn.Module):
    """EGA: attention among frames averaged to the coarsest resolution, gated at every frame; adds to its input."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        gate = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, features), nn.Sigmoid())
        self.block = nn.ModuleDict({"self_attn": RelativeAttention(features, heads, dropout), "linear": gate})

    def forward(self, x_BTD: Tensor, distances_RD: Tensor) -> Tensor:
        """As the input; distances_RD decides the coarsest resolution."""
        coarse_BTD = F.adaptive_avg_pool1d(x_BTD.mT, (len(distances_RD) + 1) // 2).mT
        attended_BTD = self.block["self_attn"](coarse_BTD, distances_RD)
        attended_BTD = F.interpolate(attended_BTD.mT, size=x_BTD.shape[1]).mT
        gate_BTD: Tensor = self.block["linear"](x_BTD)
        return x_BTD + gate_BTD * attended_BTD


class GlobalBlock(nn.Module):
    """EGA and GCFN."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.block = nn.ModuleDict(
            {"ega": GlobalAttention(features, heads, dropout), "gcfn": GatedFeedForward(features, dropout)}
        )

    def forward(self, x_BTD: Tensor, distances_RD: Tensor) -> Tensor:
        """As the input."""
        y_BTD: Tensor = self.block["gcfn"](self.block["ega"](x_BTD, distances_RD))
        return y_BTD


class LocalAttention(nn.Module):
    """CLA: a wide convolution per feature between two gates; adds to its input."""

    def __init__(self, features: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(features)
        self.linear1 = nn.Linear(features, 2 * features)
        self.GLU = nn.GLU()
        self.dw_conv_1d = nn.Conv1d(features, features, kernel, padding="same", groups=features)
        self.linear2 = nn.Linear(features, 2 * features)
        self.BN = nn.BatchNorm1d(2 * features)
        self.linear3 = nn.Sequential(nn.GELU(), nn.Linear(2 * features, features), nn.Dropout(dropout))
        self.Layer_scale = LayerScale(features)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """As the input."""
        y_BTD = self.dw_conv_1d(self.GLU(self.linear1(self.layer_norm(x_BTD))).mT).mT
        y_BTD = self.BN(self.linear2(y_BTD).mT).mT
        added: Tensor = self.Layer_scale(self.linear3(y_BTD))
        return x_BTD + added


class LocalBlock(nn.Module):
    """CLA and GCFN."""

    def __init__(self, features: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.block = nn.ModuleDict(
            {"cla": LocalAttention(features, kernel, dropout), "gcfn": GatedFeedForward(features, dropout)}
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """As the input."""
        y_BTD: Tensor = self.block["gcfn"](self.block["cla"](x_BTD))
        return y_BTD


class SourceAttention(nn.Module):
    """CS: attention among the sources at each frame, and GCFN."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(features, heads, dropout)
        self.feed_forward = GatedFeedForward(features, dropout)

    def forward(self, x_NTD: Tensor, sources: int) -> Tensor:
        """(clips x sources, frames, features), the sources of a clip beside each other."""
        clips = len(x_NTD) // sources
        x_MKD = x_NTD.reshape(clips, sources, *x_NTD.shape[1:]).transpose(1, 2).flatten(0, 1)
        x_MKD = x_MKD + self.self_attn(x_MKD)
        x_NTD = x_MKD.reshape(clips, -1, *x_MKD.shape[1:]).transpose(1, 2).flatten(0, 1)
        y_NTD: Tensor = self.feed_forward(x_NTD)
        return y_NTD

"""Parts of the vision-transformer blocks that dasheng, eat and fisher share; tensors are named as in timm."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv: nn.Linear | None = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def projections(self, x_BND: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, each (B, N, D)."""
        assert self.qkv is not None
        return tuple(self.qkv(x_BND).chunk(3, dim=-1))

    def forward(self, x_BND: Tensor, mask_B11N: Tensor | None) -> Tensor:
        """(B, tokens, D) -> the same shape. mask_B11N: True for tokens that are attended to; None for all."""
        qkv: Any = self.projections(x_BND)
        q_BHNd, k_BHNd, v_BHNd = (tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2) for tensor in qkv)
        y_BHNd = F.scaled_dot_product_attention(q_BHNd, k_BHNd, v_BHNd, attn_mask=mask_B11N)
        y_BND: Tensor = self.proj(y_BHNd.transpose(1, 2).flatten(start_dim=2))
        return y_BND


class MLP(nn.Module):
    """Two layers with GELU, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(..., D) -> the same shape."""
        y_BND: Tensor = self.fc2(F.gelu(self.fc1(x_BND)))
        return y_BND

"""The decoder of EAT's pre-training: convolutions over the grid of patches; it is thrown away afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: deviation of the random tokens in place of masked patches
MASK_DEVIATION = 0.01


class PatchDecoder(nn.Module):
    """Tokens of the patches that were seen, and noise for the others -> a prediction for every patch.

    Each of `layers` is a grouped convolution over `kernel` x `kernel` patches, a layer norm over channels without
    weights, and GELU, with a residual connection; then a dense layer (EAT, Sec. 3.1; names as in its files).
    rows: patches of one time step. Raises ValueError for sizes that do not fit each other.
    """

    def __init__(self, width: int, rows: int, *, layers: int = 6, kernel: int = 3, groups: int = 16) -> None:
        super().__init__()
        if width % groups:
            raise ValueError(f"a decoder of {groups} groups does not fit a width of {width}")
        self.rows = rows
        # Convolutions of an even size would give one patch too many: its last is left out.
        self.surplus = 1 - kernel % 2
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=groups)) for _ in range(layers)
        )
        self.proj = nn.Linear(width, width)

    def forward(self, seen_RKD: Tensor, restore_RN: Tensor, noise_RMD: Tensor) -> Tensor:
        """(rows, patches seen, width), places of all patches (see `Masks`), (rows, patches not seen, width) noise ->
        (rows, patches, width)."""
        x_RND = torch.cat([seen_RKD, noise_RMD.to(seen_RKD.dtype)], dim=1)
        x_RND = x_RND.gather(1, restore_RN[:, :, None].expand(-1, -1, x_RND.shape[2]))
        x_RDN = x_RND.transpose(1, 2)
        x_RDTF = x_RDN.reshape(*x_RDN.shape[:2], -1, self.rows)
        for block in self.blocks:
            y_RDTF = block(x_RDTF)
            if self.surplus:
                y_RDTF = y_RDTF[:, :, :-1, :-1]
            y_RTFD = F.layer_norm(y_RDTF.movedim(1, 3), y_RDTF.shape[1:2])
            x_RDTF = x_RDTF + F.gelu(y_RTFD.movedim(3, 1))
        y_RND: Tensor = self.proj(x_RDTF.flatten(start_dim=2).transpose(1, 2))
        return y_RND

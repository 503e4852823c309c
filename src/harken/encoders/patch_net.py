"""What EAT and FISHER share: a class token and patches of a spectrogram with fixed positions, then post-norm blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harken.encoders.spectrogram_net import SpectrogramNet
from harken.encoders.transformer import MLP, SelfAttention

EPSILON = 1e-6


class PatchNet(SpectrogramNet):
    """A network over patches, some of which may be left out; pre-training masks what `embed` gives.

    width, depth, heads: of the transformer. Its layers are `patches` (what enters the first block), then of each block
    its output, `block_1`, and its MLP's output before the residual, `target_1`, which pre-training predicts.
    Raises ValueError for sizes that do not fit each other.
    """

    block_path = "blocks"
    #: side of a patch, in frames and in bins
    PATCH: ClassVar[int] = 16
    #: patches of one time step, low frequencies first
    patch_rows: ClassVar[int]
    #: sub-bands of a clip, each a sequence of its own
    bands: int = 1
    #: of what a block attends with
    attention: ClassVar[type[SelfAttention]] = SelfAttention

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if depth < 1 or heads < 1 or width < 4 or width % 4 or width % heads:
            name = type(self).__name__.removesuffix("Net")
            raise ValueError(f"{depth} blocks of width {width} with {heads} heads are no {name}")
        self.layers = patch_layers(depth)
        self.extra_tokens = nn.Parameter(torch.empty(1, 1, width))
        self.local_encoder = nn.ModuleDict({"proj": nn.Conv2d(1, width, self.PATCH, stride=self.PATCH)})
        self.pre_norm = nn.LayerNorm(width, eps=EPSILON)
        self.blocks = nn.ModuleList(PatchBlock(width, self.attention(width, heads)) for _ in range(depth))

    @property
    def default_layer(self) -> str:
        """The last block's output."""
        return self.layers[-2]

    @property
    def width(self) -> int:
        """Of a token."""
        return self.extra_tokens.shape[2]

    def published_sizes(self) -> dict[str, int]:
        """Sizes that its tensors do not show, by the names that published checkpoints have for them."""
        return {"num_heads": self.blocks[0].attn.heads}  # type: ignore[dict-item,union-attr]

    @abstractmethod
    def embed(self, spectrogram_BFM: Tensor) -> Tensor:
        """(clips, frames, bins) -> (sequences, tokens, width) patches with their positions, frequency fastest."""

    def encode_patches(
        self, x_GND: Tensor, layers: Sequence[str] = (), visible_GN: Tensor | None = None
    ) -> list[Tensor]:
        """Patches with their positions, all or some of a sequence -> (sequences, 1 + tokens, width) of `layers` each.

        visible_GN: whether a patch may be attended to (default: all). Raises ValueError for an unknown layer.
        """
        layers = self.checked(layers)
        # CLS has no position.
        x_GND = self.pre_norm(torch.cat([self.extra_tokens.expand(len(x_GND), -1, -1), x_GND], dim=1))
        mask_G11N = None if visible_GN is None else F.pad(visible_GN, (1, 0), value=True)[:, None, None]
        outputs = {"patches": x_GND}
        deepest = max((self.layers.index(layer) + 1) // 2 for layer in layers)
        for number, block in enumerate(self.blocks[:deepest], start=1):
            x_GND, target_GND = block(x_GND, mask_G11N)
            for name, value in ((f"block_{number}", x_GND), (f"target_{number}", target_GND)):
                if name in layers:
                    outputs[name] = value
        return [outputs[layer] for layer in layers]


class PatchBlock(nn.Module):
    """Post-norm transformer block -> its output, and its MLP's output before the residual."""

    def __init__(self, width: int, attention: SelfAttention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = MLP(width)

    def forward(self, x_GND: Tensor, mask_G11N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(sequences, tokens, width) -> two of the same shape. mask_G11N: see `SelfAttention`."""
        x_GND = self.norm1(x_GND + self.attn(x_GND, mask_G11N))
        target_GND = self.mlp(x_GND)
        return self.norm2(x_GND + target_GND), target_GND


def patch_layers(depth: int) -> tuple[str, ...]:
    """Names of the layers of a network of so many blocks."""
    # A block's output, then its target: both are known when the block has run.
    pairs = ((f"block_{number}", f"target_{number}") for number in range(1, depth + 1))
    return ("patches", *(name for pair in pairs for name in pair))


def randomise(net: PatchNet, seed: int) -> None:
    """The network before pre-training, as the authors of both initialise it: in place."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            assert module.bias is not None
            nn.init.xavier_uniform_(module.weight.data.flatten(start_dim=1), generator=generator)
            nn.init.zeros_(module.bias)
    nn.init.normal_(net.extra_tokens, generator=generator)

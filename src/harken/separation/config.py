"""Architectures of SepReformer: sizes, and what a published checkpoint is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Count = Annotated[int, Field(ge=1)]


class SepReformerConfig(BaseModel):
    """Architecture of a SepReformer; the defaults are those of the published Base (8 kHz).

    sample_rate: in Hz. sources: number of outputs. encoder_channels, kernel, stride: of the learned filters, in
    samples. features, heads, stages: of the separator. local_kernel: frames of a local block's convolution.
    down_kernel: of the one before frames are halved. distances: largest between frames that has a vector.
    shared_split: one split into sources for all stages (Base), or one per stage (Large).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_rate: _Count = 8000
    sources: _Count = 2
    encoder_channels: _Count = 256
    kernel: _Count = 16
    stride: _Count = 4
    features: _Count = 128
    heads: _Count = 8
    stages: _Count = 4
    local_kernel: _Count = 65
    down_kernel: _Count = 5
    distances: _Count = 2000
    shared_split: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.features % self.heads:
            raise ValueError(f"{self.features} features cannot be divided among {self.heads} heads")
        if self.stride > self.kernel:
            raise ValueError("filters shorter than their stride leave samples out")
        if not self.local_kernel % 2 or not self.down_kernel % 2:
            raise ValueError("kernels over frames have an odd number of frames")
        return self


#: base, large: the published ones at 16 kHz, with filters of the published duration. tiny: ours, for tests and for
#: processors
SIZES: Mapping[str, SepReformerConfig] = {
    "tiny": SepReformerConfig(
        sample_rate=16_000, encoder_channels=64, kernel=64, stride=32, features=32, heads=2, stages=2, local_kernel=9,
        distances=500, dropout=0.0,
    ),
    "base": SepReformerConfig(sample_rate=16_000, kernel=32, stride=8),
    "large": SepReformerConfig(
        sample_rate=16_000, kernel=32, stride=8, features=256, shared_split=False, dropout=0.1
    ),
}  # fmt: skip


def config_of(tensors: Mapping[str, Any], *, sample_rate: int, stride: int | None = None) -> SepReformerConfig:
    """Architecture of a published state dict, from the shapes of its tensors.

    sample_rate, stride: which no tensor shows; filters overlap to three quarters by default, as in all that were
    published. Raises KeyError or ValueError where the tensors are of something else.
    """
    features, channels, _ = tensors["feature_projector.conv1d.weight"].shape
    kernel = tensors["audio_encoder.conv1d.weight"].shape[2]
    positions, size = tensors["separator.pos_emb.pe_k.weight"].shape
    shared = "separator.spk_split_block.linear.2.weight" in tensors
    split = f"separator.spk_split_block{'' if shared else 's.0'}.linear.2.weight"
    return SepReformerConfig(
        sample_rate=sample_rate,
        sources=tensors[split].shape[0] // features,
        encoder_channels=channels,
        kernel=kernel,
        stride=kernel // 4 if stride is None else stride,
        features=features,
        heads=features // size,
        stages=len(
            [name for name in tensors if name.startswith("separator.simple_fusion.") and name.endswith(".bias")]
        ),
        local_kernel=tensors["separator.enc_stages.0.l_block_1.block.cla.dw_conv_1d.weight"].shape[2],
        down_kernel=tensors["separator.enc_stages.0.downconv.down_conv.weight"].shape[2],
        distances=positions // 2,
        shared_split=shared,
    )

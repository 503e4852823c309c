"""Architectures of TangoFlux: the published one, and a tiny one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Count = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextConfig(_Frozen):
    """A T5 encoder; the defaults are those of flan-t5-large. tokens: how text is divided, by the file of its tokenizer
    or into `bytes`, which needs none. longest: tokens of a caption, more are cut."""

    tokens: Literal["file", "bytes"] = "file"
    longest: _Count = 512
    vocabulary: _Count = 32128
    width: _Count = 1024
    head_width: _Count = 64
    hidden: _Count = 2816
    layers: _Count = 24
    heads: _Count = 16


class OobleckConfig(_Frozen):
    """The autoencoder of Stable Audio Open. sample_rate: in Hz. ratios: of the strides, whose product is the samples
    per latent. width, multiples: channels of its blocks."""

    kind: Literal["oobleck"] = "oobleck"
    sample_rate: _Count = 44_100
    ratios: tuple[_Count, ...] = (2, 4, 4, 8, 8)
    multiples: tuple[_Count, ...] = (1, 2, 4, 8, 16)
    width: _Count = 128

    @property
    def hop(self) -> int:
        """Samples per latent."""
        hop = 1
        for ratio in self.ratios:
            hop *= ratio
        return hop


class BlocksConfig(_Frozen):
    """Latents without weights: the cosine transforms of blocks of `hop` samples, from which they come back."""

    kind: Literal["blocks"] = "blocks"
    sample_rate: _Count = 16_000
    hop: _Count = 128


class TangoFluxConfig(_Frozen):
    """Sizes of a TangoFlux; the defaults are the published ones.

    layers, single_layers: blocks with separate and with joint streams of text and sound. axes: of a head's width, for
    the rotary positions. latents: of a clip of `seconds`, the longest. channels: of a latent.
    """

    layers: _Count = 6
    single_layers: _Count = 18
    heads: _Count = 8
    axes: tuple[_Count, _Count, _Count] = (16, 56, 56)
    channels: _Count = 64
    latents: _Count = 645
    seconds: Annotated[float, Field(gt=0)] = 30.0
    text: TextConfig = TextConfig()
    autoencoder: Annotated[OobleckConfig | BlocksConfig, Field(discriminator="kind")] = OobleckConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.autoencoder, BlocksConfig) and self.channels != self.autoencoder.hop:
            raise ValueError(f"latents of blocks have {self.autoencoder.hop} channels, not {self.channels}")
        kind = self.autoencoder
        if self.latents < int(self.seconds * kind.sample_rate) // kind.hop:
            raise ValueError(f"{self.latents} latents do not hold {self.seconds:g} s")
        return self

    @property
    def head_width(self) -> int:
        """Of an attention head."""
        return sum(self.axes)


#: full: as published. tiny: for tests and processors; its latents and its tokenizer need no weights or files
SIZES: dict[str, TangoFluxConfig] = {
    "full": TangoFluxConfig(),
    "tiny": TangoFluxConfig(
        layers=1, single_layers=1, heads=2, axes=(4, 14, 14), channels=128, latents=1500, seconds=12.0,
        text=TextConfig(tokens="bytes", vocabulary=384, width=32, head_width=16, hidden=64, layers=1, heads=2),
        autoencoder=BlocksConfig(),
    ),
}  # fmt: skip


def published_config(settings: Mapping[str, Any]) -> TangoFluxConfig:
    """Of the `config.json` that is published beside the weights. Raises KeyError or ValueError for another file."""
    head = int(settings["attention_head_dim"])
    if head != 128:
        raise ValueError(f"rotary positions fill 128 dimensions of a head, not {head}")
    width = int(settings["joint_attention_dim"])
    return TangoFluxConfig(
        layers=settings["num_layers"],
        single_layers=settings["num_single_layers"],
        heads=settings["num_attention_heads"],
        channels=settings["in_channels"],
        latents=settings["audio_seq_len"],
        seconds=settings["max_duration"],
        text=TextConfig(width=width),
    )

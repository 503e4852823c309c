"""SepReformer: a mixture -> its sources (Shin et al., NeurIPS 2024, arXiv 2406.05983), as published.

Names of parameters are those of the published checkpoints. Frames of learned filters shrink over `stages` steps of the
encoder, are split into one sequence per source, and grow again in the decoder, which sources share.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harken.separation.blocks import Distances, GlobalBlock, LocalBlock, SourceAttention
from harken.separation.config import SepReformerConfig


class Separated(NamedTuple):
    """Outputs for a batch. sources_BKS: (clips, sources, samples). stages_LBKS: auxiliary outputs, (stages, clips,
    sources, samples), the coarsest stage first; None unless asked for."""

    sources_BKS: Tensor
    stages_LBKS: Tensor | None


class SepReformer(nn.Module):
    """See the module. Weights are random until `load_state_dict`."""

    def __init__(self, config: SepReformerConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = nn.ModuleDict(
            {"conv1d": nn.Conv1d(1, config.encoder_channels, config.kernel, config.stride, bias=False)}
        )
        self.feature_projector = nn.ModuleDict(
            {
                "norm": nn.GroupNorm(1, config.encoder_channels, eps=1e-8),
                "conv1d": nn.Conv1d(config.encoder_channels, config.features, 1, bias=False),
            }
        )
        self.separator = _Separator(config)
        self.out_layer = _Output(config)
        self.audio_decoder = _decoder(config)
        self.out_layer_bn = nn.ModuleList(_Output(config) for _ in range(config.stages))
        self.decoder_bn = nn.ModuleList(_decoder(config) for _ in range(config.stages))

    def forward(self, mixture_BS: Tensor, *, auxiliary: bool = False) -> Separated:
        """mixture_BS: (clips, samples) of any length, padded with zeros at the end to whole frames.

        auxiliary: also the outputs of each stage, of which training takes losses.
        """
        samples = mixture_BS.shape[-1]
        missing = max(0, self.config.kernel - samples)
        missing += -(samples + missing - self.config.kernel) % self.config.stride
        encoded_BCT = F.gelu(self.audio_encoder["conv1d"](F.pad(mixture_BS, (0, missing))[:, None]))
        projected_BDT = self.feature_projector["conv1d"](self.feature_projector["norm"](encoded_BCT))
        last_NTD, stages = self.separator(projected_BDT.mT)
        frames = encoded_BCT.shape[-1]
        sources_BKS = self._decoded(self.audio_decoder, self.out_layer(last_NTD[:, :frames]), samples)
        if not auxiliary:
            return Separated(sources_BKS, None)
        outputs = []
        for stage_NTD, layer, decoder in zip(stages, self.out_layer_bn, self.decoder_bn, strict=True):
            fine_NTD = F.interpolate(stage_NTD.mT, size=frames).mT
            mask_NCT = F.relu(layer(fine_NTD)).reshape(len(mixture_BS), -1, *encoded_BCT.shape[1:])
            outputs.append(self._decoded(decoder, (mask_NCT * encoded_BCT[:, None]).flatten(0, 1), samples))
        return Separated(sources_BKS, torch.stack(outputs))

    def _decoded(self, decoder: nn.Module, channels_NCT: Tensor, samples: int) -> Tensor:
        wave_NS: Tensor = decoder(channels_NCT)[:, 0, :samples]
        return wave_NS.reshape(-1, self.config.sources, samples)


def _decoder(config: SepReformerConfig) -> nn.Module:
    return nn.ConvTranspose1d(config.encoder_channels, 1, config.kernel, config.stride, bias=False)


class _Output(nn.Module):
    """(clips x sources, frames, features) -> (clips x sources, encoder channels, frames)."""

    def __init__(self, config: SepReformerConfig) -> None:
        super().__init__()
        self.end_conv1x1 = nn.Sequential(
            nn.Linear(config.features, 4 * config.features),
            nn.GLU(),
            nn.Linear(2 * config.features, config.encoder_channels),
        )

    def forward(self, x_NTD: Tensor) -> Tensor:
        y_NCT: Tensor = self.end_conv1x1(x_NTD).mT
        return y_NCT


class _DownConv(nn.Module):
    """Every second frame, after a convolution."""

    def __init__(self, config: SepReformerConfig) -> None:
        super().__init__()
        size, kernel = config.features, config.down_kernel
        self.down_conv = nn.Conv1d(size, size, kernel, stride=2, padding=(kernel - 1) // 2, groups=size)
        self.BN = nn.BatchNorm1d(size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.gelu(self.BN(self.down_conv(x_BTD.mT))).mT


class _EncoderStage(nn.Module):
    def __init__(self, config: SepReformerConfig, down: bool) -> None:
        super().__init__()
        for number in (1, 2):
            setattr(self, f"g_block_{number}", GlobalBlock(config.features, config.heads, config.dropout))
            setattr(self, f"l_block_{number}", LocalBlock(config.features, config.local_kernel, config.dropout))
        self.downconv = _DownConv(config) if down else None

    def forward(self, x_BTD: Tensor, distances_RD: Tensor) -> tuple[Tensor, Tensor]:
        """What passes on, and what skips to the decoder."""
        for number in (1, 2):
            x_BTD = getattr(self, f"g_block_{number}")(x_BTD, distances_RD)
            x_BTD = getattr(self, f"l_block_{number}")(x_BTD)
        return (x_BTD if self.downconv is None else self.downconv(x_BTD)), x_BTD


class _Split(nn.Module):
    """(clips, frames, features) -> (clips x sources, frames, features)."""

    def __init__(self, config: SepReformerConfig) -> None:
        super().__init__()
        size, sources = config.features, config.sources
        self.sources = sources
        self.linear = nn.Sequential(
            nn.Conv1d(size, 4 * size * sources, 1), nn.GLU(dim=-2), nn.Conv1d(2 * size * sources, size * sources, 1)
        )
        self.norm = nn.GroupNorm(1, size, eps=1e-8)

    def forward(self, x_BTD: Tensor) -> Tensor:
        split_NDT = self.linear(x_BTD.mT).reshape(len(x_BTD) * self.sources, -1, x_BTD.shape[1])
        normed: Tensor = self.norm(split_NDT).mT
        return normed


class _DecoderStage(nn.Module):
    def __init__(self, config: SepReformerConfig) -> None:
        super().__init__()
        self.sources = config.sources
        for number in (1, 2, 3):
            setattr(self, f"g_block_{number}", GlobalBlock(config.features, config.heads, config.dropout))
            setattr(self, f"l_block_{number}", LocalBlock(config.features, config.local_kernel, config.dropout))
            setattr(self, f"spk_attn_{number}", SourceAttention(config.features, config.heads, config.dropout))

    def forward(self, x_NTD: Tensor, distances_RD: Tensor) -> Tensor:
        for number in (1, 2, 3):
            x_NTD = getattr(self, f"g_block_{number}")(x_NTD, distances_RD)
            x_NTD = getattr(self, f"l_block_{number}")(x_NTD)
            x_NTD = getattr(self, f"spk_attn_{number}")(x_NTD, self.sources)
        return x_NTD


class _Separator(nn.Module):
    def __init__(self, config: SepReformerConfig) -> None:
        super().__init__()
        self.stages = config.stages
        self.pos_emb = Distances(config.features // config.heads, config.distances)
        self.enc_stages = nn.ModuleList(_EncoderStage(config, down=True) for _ in range(config.stages))
        self.bottleneck_G = _EncoderStage(config, down=False)
        if config.shared_split:
            self.spk_split_block = _Split(config)
        else:
            self.spk_split_blocks = nn.ModuleList(_Split(config) for _ in range(config.stages + 1))
        self.simple_fusion = nn.ModuleList(
            nn.Conv1d(2 * config.features, config.features, 1) for _ in range(config.stages)
        )
        self.dec_stages = nn.ModuleList(_DecoderStage(config) for _ in range(config.stages))
        self.shared_split = config.shared_split

    def _split(self, stage: int, x_BTD: Tensor) -> Tensor:
        block = self.spk_split_block if self.shared_split else self.spk_split_blocks[stage]
        split_NTD: Tensor = block(x_BTD)
        return split_NTD

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Frames of all sources, those of padding included; and what went into each stage of the decoder."""
        x_BTD = F.pad(x_BTD, (0, 0, 0, -x_BTD.shape[1] % 2**self.stages))
        distances_RD = self.pos_emb(x_BTD.shape[1] // 2**self.stages)
        skips = []
        for number, stage in enumerate(self.enc_stages):
            x_BTD, skip_BTD = stage(x_BTD, distances_RD)
            skips.append(self._split(number, skip_BTD))
        x_BTD, _ = self.bottleneck_G(x_BTD, distances_RD)
        x_NTD = self._split(-1, x_BTD)
        inputs = []
        for fusion, stage, skip_NTD in zip(self.simple_fusion, self.dec_stages, reversed(skips), strict=True):
            inputs.append(x_NTD)
            x_NTD = F.interpolate(x_NTD.mT, size=skip_NTD.shape[1]).mT
            x_NTD = stage(fusion(torch.cat([x_NTD, skip_NTD], dim=-1).mT).mT, distances_RD)
        return x_NTD, inputs

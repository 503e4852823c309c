"""TangoFlux: a flow-matching transformer over latents of sound, conditioned on a caption and a duration.

Hung et al., "TangoFlux: Super Fast and Faithful Text to Audio Generation with Flow Matching and Clap-Ranked Preference
Optimization", arXiv:2412.21037, 2024. Its blocks are those of Flux (diffusers); the tensors have the published names.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harken.generation.config import TangoFluxConfig
from harken.generation.libraries import diffusers

#: frequencies of a duration
_FREQUENCIES = 128


class Conditioning(NamedTuple):
    """What is generated. context_BLD: states of the caption's tokens, with the token of the duration at the end.
    pooled_BD: their projected mean."""

    context_BLD: Tensor
    pooled_BD: Tensor


class TangoFlux(nn.Module):
    """The network of velocities, without text encoder and autoencoder."""

    def __init__(self, config: TangoFluxConfig) -> None:
        super().__init__()
        self.config = config
        width = config.text.width
        self.transformer = diffusers().FluxTransformer2DModel(
            in_channels=config.channels,
            num_layers=config.layers,
            num_single_layers=config.single_layers,
            attention_head_dim=config.head_width,
            num_attention_heads=config.heads,
            joint_attention_dim=width,
            pooled_projection_dim=width,
            guidance_embeds=False,
            axes_dims_rope=config.axes,
        )
        # The published file spells it so.
        self.duration_emebdder = DurationEmbedder(width, config.seconds)
        self.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def condition(self, states_BLD: Tensor, mask_BL: Tensor, seconds_B: Tensor) -> Conditioning:
        """Of captions and durations. states_BLD: of the text encoder. mask_BL: 1 for real tokens; padding remains in
        the context, as in the published training, but not in the mean."""
        token_B1D = self.duration_emebdder(seconds_B)
        mask_BL1 = mask_BL.to(states_BLD.dtype)[:, :, None]
        mean_BD = (states_BLD * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1).clamp_min(1)
        return Conditioning(torch.cat([states_BLD, token_B1D], dim=1), self.fc(mean_BD))

    def forward(self, noisy_BTD: Tensor, time_B: Tensor, condition: Conditioning) -> Tensor:
        """(B, latents, channels) velocity at times in (0, 1]; 1 is noise."""
        tokens, latents = condition.context_BLD.shape[1], noisy_BTD.shape[1]
        device = noisy_BTD.device
        velocity_BTD: Tensor = self.transformer(
            hidden_states=noisy_BTD,
            timestep=time_B,
            pooled_projections=condition.pooled_BD,
            encoder_hidden_states=condition.context_BLD,
            txt_ids=torch.zeros(tokens, 3, device=device),
            img_ids=torch.arange(latents, device=device)[:, None].repeat(1, 3),
            return_dict=False,
        )[0]
        return velocity_BTD


class DurationEmbedder(nn.Module):
    """A duration as a token: itself, sines and cosines of learned frequencies, and a projection.

    width: of a token. longest: in seconds; the duration as a share of it is what passes.
    """

    def __init__(self, width: int, longest: float) -> None:
        super().__init__()
        self.longest = longest
        self.time_positional_embedding = nn.Sequential(_Fourier(_FREQUENCIES), nn.Linear(2 * _FREQUENCIES + 1, width))

    def forward(self, seconds_B: Tensor) -> Tensor:
        """(B, 1, width)."""
        share_B = seconds_B.clamp(0, self.longest) / self.longest
        token_BD: Tensor = self.time_positional_embedding(share_B)
        return token_BD[:, None]


class _Fourier(nn.Module):
    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(frequencies))

    def forward(self, share_B: Tensor) -> Tensor:
        share_B1 = share_B[:, None]
        phase_BF = 2 * math.pi * share_B1 * self.weights
        return torch.cat([share_B1, phase_BF.sin(), phase_BF.cos()], dim=1)

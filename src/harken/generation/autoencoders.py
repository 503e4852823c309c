"""Autoencoders of sound, mono at their rate: a network with published weights, or a transform without any."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor, nn

from harken.generation.config import BlocksConfig, OobleckConfig
from harken.generation.libraries import diffusers

#: gain of the blocks, with which sound at -20 dBFS has about the deviation of the noise
BLOCK_GAIN = 10.0


class SoundAutoencoder(nn.Module, ABC):
    """Sound as latents and back, frozen."""

    @abstractmethod
    def latents(self, wave_S: Tensor) -> Tensor:
        """(samples,) -> (latents, channels); samples that fill no latent are left out."""

    @abstractmethod
    def sound(self, latents_TD: Tensor) -> Tensor:
        """(latents, channels) -> (samples,)."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """On which it computes."""


class Oobleck(SoundAutoencoder):
    """The autoencoder of Stable Audio Open (Evans et al., arXiv:2407.14358): stereo, to which mono is doubled and from
    which it is averaged."""

    def __init__(self, config: OobleckConfig, channels: int) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # diffusers builds it with an older way to normalise weights, after which the published tensors are named.
            warnings.simplefilter("ignore", FutureWarning)
            self.net = diffusers().AutoencoderOobleck(
                encoder_hidden_size=2 * channels,
                downsampling_ratios=list(config.ratios),
                channel_multiples=list(config.multiples),
                decoder_channels=config.width,
                decoder_input_channels=channels,
                audio_channels=2,
                sampling_rate=config.sample_rate,
            )

    def latents(self, wave_S: Tensor) -> Tensor:
        """The mean of their distribution, as TangoFlux was trained with."""
        latents_1DT: Tensor = self.net.encode(wave_S.expand(1, 2, -1)).latent_dist.mode()
        return latents_1DT[0].T

    def sound(self, latents_TD: Tensor) -> Tensor:
        wave_1CS: Tensor = self.net.decode(latents_TD.T[None]).sample
        return wave_1CS[0].mean(dim=0)

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device


class BlockTransform(SoundAutoencoder):
    """Cosine transforms (type II, orthonormal) of blocks, times `BLOCK_GAIN`; exactly invertible. Ours."""

    transform_HH: Tensor

    def __init__(self, config: BlocksConfig) -> None:
        super().__init__()
        transform_HH = dct(np.eye(config.hop), type=2, norm="ortho", axis=0).astype(np.float32)
        self.register_buffer("transform_HH", torch.from_numpy(transform_HH), persistent=False)

    def latents(self, wave_S: Tensor) -> Tensor:
        hop = len(self.transform_HH)
        blocks_TH = wave_S[: len(wave_S) // hop * hop].reshape(-1, hop)
        return BLOCK_GAIN * blocks_TH @ self.transform_HH.T

    def sound(self, latents_TD: Tensor) -> Tensor:
        return (latents_TD @ self.transform_HH).flatten() / BLOCK_GAIN

    @property
    def device(self) -> torch.device:
        return self.transform_HH.device

"""Clips as latents of TangoFlux, and back: mono, of any rate, level and length."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harken.audio.listen import normalised
from harken.audio.moments import level_dbfs
from harken.audio.resample import resample
from harken.core.errors import HarkenError
from harken.generation.autoencoders import BlockTransform, Oobleck, SoundAutoencoder
from harken.generation.config import OobleckConfig, TangoFluxConfig

Float32 = NDArray[np.float32]

#: latents on either side on which a latent, or its sound, may depend; with the published strides 8 and 10
REACH = 16


class SoundCodec(nn.Module):
    """An autoencoder with what clips need: one level, the longest length, rates that differ from its own."""

    autoencoder: SoundAutoencoder

    def __init__(self, config: TangoFluxConfig) -> None:
        super().__init__()
        self.config = config
        kind = config.autoencoder
        self.autoencoder = Oobleck(kind, config.channels) if isinstance(kind, OobleckConfig) else BlockTransform(kind)
        self.eval().requires_grad_(False)

    def encode(self, wave_S: Float32, sample_rate: int) -> Float32:
        """(latents, channels) of a clip, brought to one level and followed by silence; what is longer is cut.

        What follows a clip does not depend on it, and is computed once. Raises HarkenError for silence.
        """
        if not np.any(wave_S):
            raise HarkenError("holds nothing but silence", next_step="Leave it out")
        kind, total = self.config.autoencoder, self.config.latents
        heard_S = resample(normalised(wave_S[None]), sample_rate, kind.sample_rate)[0][: self._longest]
        needed = math.ceil(len(heard_S) / kind.hop) + 2 * REACH
        if needed >= total:
            return self._latents(heard_S, self._longest)[:total]
        clip_TD = self._latents(heard_S, needed * kind.hop)[: needed - REACH]
        within_1D, end_TD = self._silence
        return np.concatenate([clip_TD, within_1D.repeat(total - len(clip_TD) - REACH, axis=0), end_TD])

    def decode(self, latents_TD: Tensor, samples: int, sample_rate: int, level_db: float) -> Float32:
        """(samples,) at a rate and a level in dBFS; zeros after the longest length."""
        kind = self.config.autoencoder
        needed = math.ceil(samples * kind.sample_rate / sample_rate)
        latents = min(len(latents_TD), math.ceil(needed / kind.hop) + REACH)
        with torch.inference_mode():
            heard_S = self.autoencoder.sound(latents_TD[:latents].to(self.autoencoder.device)).float().cpu().numpy()
        wave_S = resample(heard_S[None, :needed], kind.sample_rate, sample_rate)[0][:samples]
        if np.any(wave_S):
            gain = 10 ** ((level_db - level_dbfs(wave_S[None])) / 20)
            wave_S = np.asarray(wave_S * gain, dtype=np.float32)
        return np.pad(wave_S, (0, samples - len(wave_S)))

    @property
    def _longest(self) -> int:
        """Samples that are encoded at most, at least as many as the latents are made of."""
        kind = self.config.autoencoder
        return max(round(self.config.seconds * kind.sample_rate), self.config.latents * kind.hop)

    @cached_property
    def _silence(self) -> tuple[Float32, Float32]:
        """(1, channels) within silence, and (`REACH`, channels) where the longest length ends."""
        hop, total = self.config.autoencoder.hop, self.config.latents
        silence_TD = self._latents(np.zeros(0, np.float32), self._longest - (total - 4 * REACH) * hop)[: 4 * REACH]
        return silence_TD[2 * REACH : 2 * REACH + 1], silence_TD[-REACH:]

    def _latents(self, wave_S: Float32, samples: int) -> Float32:
        padded_S = torch.from_numpy(np.pad(wave_S, (0, samples - len(wave_S)))).to(self.autoencoder.device)
        with torch.inference_mode():
            return self.autoencoder.latents(padded_S).float().cpu().numpy()

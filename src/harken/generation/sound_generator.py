"""A generator of sound with all that it consists of: network, text encoder, tokenizer, autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harken.generation.config import TangoFluxConfig
from harken.generation.flow import sample
from harken.generation.latents import SoundCodec
from harken.generation.tangoflux import Conditioning, TangoFlux
from harken.generation.tangoflux_settings import TangoFluxSampling
from harken.generation.text import TextStates, Tokenizer, text_states
from harken.training.augment.random_state import rng_for

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class SoundForm:
    """Of a clip that is made: samples at a rate in Hz, and level in dBFS."""

    samples: int
    sample_rate: int
    level_db: float

    @property
    def seconds(self) -> float:
        """Length."""
        return self.samples / self.sample_rate


@dataclass
class SoundGenerator:
    """A TangoFlux that makes clips.

    encoder: of captions. source: where the frozen parts come from, `weights` of a recipe; None: at random from a seed.
    digest: of all weights.
    """

    net: TangoFlux
    encoder: nn.Module
    tokenizer: Tokenizer
    codec: SoundCodec
    source: str | None
    digest: str
    _states: dict[str, TextStates] = field(default_factory=dict, repr=False)

    @property
    def config(self) -> TangoFluxConfig:
        """Its sizes."""
        return self.net.config

    def to(self, device: str) -> SoundGenerator:
        """Move all networks to a device."""
        for module in (self.net, self.encoder, self.codec):
            module.to(device)
        self._states.clear()
        return self

    def generate(
        self, caption: str, form: SoundForm, sampling: TangoFluxSampling, *, seed: int, item: str,
        reference: tuple[Float32, int] | None = None,
    ) -> Float32:  # fmt: skip
        """(samples,) of one clip.

        Clips are not longer than `TangoFluxConfig.seconds`. seed, item: which decide the noise; item is the
        clip's id. reference: (samples,) and rate of a sound to start from. Raises HarkenError for a silent reference,
        and where one is missing.
        """
        config, device = self.config, next(self.net.parameters()).device
        noise_TD = rng_for(seed, 0, item, "noise").standard_normal((config.latents, config.channels), np.float32)
        reference_1TD = None
        if reference is not None and sampling.s0 < 1:
            reference_1TD = torch.from_numpy(self.codec.encode(*reference))[None].to(device)
        self.net.eval()
        with torch.inference_mode():
            condition, unconditional = self._conditionings(caption, form.seconds)
            latents_1TD = sample(
                self.net, torch.from_numpy(noise_TD)[None].to(device), condition, unconditional,
                steps=sampling.steps, guidance=sampling.guidance, reference_BTD=reference_1TD, start=sampling.s0,
            )  # fmt: skip
        samples = min(form.samples, int(config.seconds * form.sample_rate))
        return self.codec.decode(latents_1TD[0], samples, form.sample_rate, form.level_db)

    def _conditionings(self, caption: str, seconds: float) -> tuple[Conditioning, Conditioning]:
        """Of the caption, and of an empty one of its length; both know the duration."""
        if caption not in self._states:
            tokens = self.tokenizer([caption])
            empty = self.tokenizer([""], length=tokens.ids_BL.shape[1])
            self._states[caption] = text_states(self.encoder, tokens)
            self._states[f"\0{caption}"] = text_states(self.encoder, empty)
        seconds_B = torch.tensor([seconds], device=next(self.net.parameters()).device)
        of_caption, of_nothing = self._states[caption], self._states[f"\0{caption}"]
        return self.net.condition(*of_caption, seconds_B), self.net.condition(*of_nothing, seconds_B)

    def caption_states(self, captions: Sequence[str]) -> tuple[TextStates, TextStates]:
        """States of captions, padded to the longest of them, and of the empty one at that length, on the CPU."""
        tokens = self.tokenizer(captions)
        length = tokens.ids_BL.shape[1]
        rows = [text_states(self.encoder, self.tokenizer([text], length)) for text in captions]
        empty = text_states(self.encoder, self.tokenizer([""], length))
        states_BLD = torch.cat([row.states_BLD for row in rows]).cpu()
        mask_BL = torch.cat([row.mask_BL for row in rows]).cpu()
        return TextStates(states_BLD, mask_BL), TextStates(empty.states_BLD.cpu(), empty.mask_BL.cpu())


def modules_of(generator: SoundGenerator) -> dict[str, nn.Module]:
    """Modules with weights, by name."""
    return {"net": generator.net, "text_encoder": generator.encoder, "autoencoder": generator.codec.autoencoder}

"""Which transforms a training has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from harken.data.clips import Clip
from harken.training.augment.featex import FeatEx
from harken.training.augment.mixup import Mixup
from harken.training.augment.noise_mix import NoiseBank, NoiseMix
from harken.training.augment.random_state import rng_for
from harken.training.augment.shift import Shift
from harken.training.augment.spec_augment import SpecAugment

if TYPE_CHECKING:
    from harken.training.recordings import Reader

Float32 = NDArray[np.float32]


class Augmentation(BaseModel):
    """None: without. Of waveforms, in this order: shift, noise_mix, mixup; of spectrograms: spec_augment; of
    embeddings: featex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shift: Shift | None = None
    noise_mix: NoiseMix | None = None
    mixup: Mixup | None = None
    spec_augment: SpecAugment | None = None
    featex: FeatEx | None = None

    def wave_transform(self, clips: Sequence[Clip], reader: Reader) -> WaveAugment | None:
        """What is done to single waveforms, None for nothing.

        clips: among which the noise is. reader: of what is trained on; noise is read likewise, but whole.
        """
        if self.shift is None and self.noise_mix is None:
            return None
        return WaveAugment(self, NoiseBank(clips, replace(reader, seconds=None)) if self.noise_mix else None)


class WaveAugment:
    """Shift and noise; picklable, for workers that read clips.

    Clips of pure noise and clean ones get no noise: their label, which stays, would not be true.
    """

    def __init__(self, settings: Augmentation, bank: NoiseBank | None) -> None:
        self.settings = settings
        self.bank = bank

    def __call__(self, wave_T: Float32, clip: Clip, seed: int, epoch: int) -> Float32:
        """(samples,) -> (samples,); random numbers depend on seed, epoch and the clip's id alone."""
        settings = self.settings
        if settings.shift is not None:
            wave_T = settings.shift.apply(wave_T, rng_for(seed, epoch, clip.clip_id, "shift"))
        if settings.noise_mix is not None and self.bank is not None and clip.kind not in ("clean", "noise"):
            machine = clip.machine if settings.noise_mix.own_machine else None
            draw = partial(self.bank.draw, machine)
            wave_T = settings.noise_mix.apply(wave_T, draw, rng_for(seed, epoch, clip.clip_id, "noise_mix"))
        return wave_T

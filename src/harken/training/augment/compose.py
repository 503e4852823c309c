"""Which transforms a training has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from harken.core.errors import did_you_mean
from harken.core.later_fields import LaterFields
from harken.data.clips import Clip
from harken.training.augment.custom import CustomAugmentation, WaveAugmentation
from harken.training.augment.featex import FeatEx
from harken.training.augment.mixup import Mixup
from harken.training.augment.noise_mix import NoiseBank, NoiseMix
from harken.training.augment.random_state import rng_for
from harken.training.augment.shift import Shift
from harken.training.augment.spec_augment import SpecAugment

if TYPE_CHECKING:
    from harken.training.recordings import Reader

Float32 = NDArray[np.float32]


class Augmentation(LaterFields, BaseModel):
    """None: without. Of waveforms, in this order: shift, noise_mix, custom ones, mixup; of spectrograms: spec_augment;
    of embeddings: featex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    later: ClassVar[tuple[str, ...]] = ("custom",)

    shift: Shift | None = None
    noise_mix: NoiseMix | None = None
    mixup: Mixup | None = None
    spec_augment: SpecAugment | None = None
    featex: FeatEx | None = None
    custom: tuple[CustomAugmentation, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                hint = did_you_mean(str(name), cls.model_fields)
                raise ValueError(f"unknown augmentation {name!r}. {hint}")
        return given

    def wave_transform(self, clips: Sequence[Clip], reader: Reader) -> WaveAugment | None:
        """Transform of single waveforms; None if there is none.

        clips: among which the noise is. reader: of what is trained on; noise is read likewise, but whole.
        """
        if self.shift is None and self.noise_mix is None and not self.custom:
            return None
        return WaveAugment(self, NoiseBank(clips, replace(reader, seconds=None)) if self.noise_mix else None)


class WaveAugment:
    """Shift, noise and custom augmentations; picklable, for workers that read clips.

    Clips of pure noise and clean ones get no noise: their label, which stays, would not be true.
    """

    def __init__(self, settings: Augmentation, bank: NoiseBank | None) -> None:
        self.settings = settings
        self.bank = bank
        self._custom: list[WaveAugmentation] | None = None

    def __call__(self, wave_S: Float32, clip: Clip, seed: int, epoch: int) -> Float32:
        """(samples,) -> (samples,); random numbers depend only on seed, epoch and the clip's id."""
        settings = self.settings
        if settings.shift is not None:
            wave_S = settings.shift.apply(wave_S, rng_for(seed, epoch, clip.clip_id, "shift"))
        if settings.noise_mix is not None and self.bank is not None and clip.kind not in ("clean", "noise"):
            machine = clip.machine if settings.noise_mix.own_machine else None
            draw = partial(self.bank.draw, machine)
            wave_S = settings.noise_mix.apply(wave_S, draw, rng_for(seed, epoch, clip.clip_id, "noise_mix"))
        if settings.custom and self._custom is None:
            self._custom = [spec.build() for spec in settings.custom]
        for number, (spec, built) in enumerate(zip(settings.custom, self._custom or (), strict=True)):
            wave_S = spec.apply(built, wave_S, rng_for(seed, epoch, clip.clip_id, f"custom {number}"))
        return wave_S

    def __getstate__(self) -> dict[str, Any]:
        # Classes of files are loaded anew where it is used.
        return {**self.__dict__, "_custom": None}

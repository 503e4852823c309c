"""TangoFlux as a generator of clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from harken.audio.listen import listen
from harken.audio.moments import level_dbfs
from harken.core.errors import AudioError, HarkenError
from harken.generation.encoded_clips import LISTENING
from harken.generation.finetuning import GENERATOR
from harken.generation.generator import ClipRequest, GeneratedSound, GeneratedSpectrogram, Generator
from harken.generation.sound_generator import SoundForm, SoundGenerator
from harken.generation.tangoflux_files import read_tangoflux
from harken.generation.tangoflux_settings import TangoFluxSampling


class TangoFluxGenerator(Generator):
    """Clips in the form, and at the level, of the clip that they start from."""

    name: ClassVar[str] = "tangoflux"

    def __init__(self, generator: SoundGenerator, sampling: TangoFluxSampling) -> None:
        self.generator, self.sampling = generator, sampling
        self.digest = generator.digest

    @classmethod
    def load(cls, folder: Path, sampling: TangoFluxSampling, *, device: str = "cpu") -> Self:
        return cls(read_tangoflux(folder / GENERATOR).to(device), sampling)

    def generate(self, requests: Sequence[ClipRequest]) -> list[GeneratedSound | GeneratedSpectrogram]:
        return [self._sound(request) for request in requests]

    def _sound(self, request: ClipRequest) -> GeneratedSound:
        file = request.reference.path
        sound = listen(file, LISTENING)
        reference_S = sound.wave_CS[0]
        form = SoundForm(len(reference_S), sound.sample_rate, level_dbfs(reference_S[None]))
        if not np.any(reference_S):
            raise AudioError("holds nothing but silence", file=file, next_step="Leave it out")
        try:
            wave_S = self.generator.generate(
                request.caption, form, self.sampling, seed=request.seed, item=str(request.number),
                reference=(reference_S, sound.sample_rate),
            )  # fmt: skip
        except HarkenError as error:
            raise AudioError(error.cause, file=file, next_step=error.next_step) from None
        return GeneratedSound(wave_S[None], sound.sample_rate, {"s0": self.sampling.s0})

"""Noise-aware training: recorded noise is added, labels are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from harken.audio.mix import mix_at_snr
from harken.audio.moments import level_dbfs
from harken.audio.quality import SILENCE_DBFS
from harken.core.errors import AudioError
from harken.data.clips import Clip

Float32 = NDArray[np.float32]

#: bytes of decoded noise cached per worker
KEPT_BYTES = 64 * 2**20


class NoiseMix(BaseModel):
    """SJTU-AITHU (DCASE 2025 Task 2), sec. 2.3: half of the clips get noise at an SNR drawn from 5, 10, 15, 20 dB.

    probability: of a clip to be mixed. snr_db: values of 10 log10(power of the clip / power of the added noise), one of
    which is drawn. own_machine: draw from noise that was recorded for the clip's machine, where there is some; else,
    as in the report, from all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    snr_db: Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)] = (5, 10, 15, 20)
    own_machine: bool = False

    def apply(
        self, wave_S: Float32, noise: Callable[[np.random.Generator], Float32 | None], rng: np.random.Generator
    ) -> Float32:
        """(samples,) -> (samples,), beyond 1 where they add up to it: nothing is clipped.

        noise: draws a noise clip, None where there is none; asked only where it is needed. Longer noise is cropped at a
        random place, shorter noise repeated from a random place on. A silent clip (below -90 dBFS), and one that meets
        silent noise, stay as they are.
        """
        chosen, snr_db = rng.random() < self.probability, float(rng.choice(self.snr_db))
        if not chosen:
            return wave_S
        noise_S = noise(rng)
        if noise_S is None:
            return wave_S
        spare = len(noise_S) - len(wave_S)
        if spare >= 0:
            start = int(rng.integers(spare + 1))
            noise_S = noise_S[start : start + len(wave_S)]
        else:
            noise_S = np.resize(np.roll(noise_S, -int(rng.integers(len(noise_S)))), len(wave_S))
        # Silence contains rounding noise only.
        if min(level_dbfs(wave_S), level_dbfs(noise_S)) < SILENCE_DBFS:
            return wave_S
        return mix_at_snr(wave_S[None], noise_S[None], snr_db)[0]


class NoiseBank:
    """The noise clips of a clips table, but for those of the test split. Picklable, without what was read.

    read: clip -> (samples,) float32, of the rate that is trained at.
    """

    def __init__(self, clips: Sequence[Clip], read: Callable[[Clip], Float32]) -> None:
        noise = [clip for clip in clips if clip.kind == "noise" and clip.split != "test"]
        self.all = sorted(noise, key=lambda clip: clip.clip_id)
        self.of_machine: dict[str, list[Clip]] = {}
        for clip in self.all:
            self.of_machine.setdefault(clip.machine, []).append(clip)
        self.read = read
        # Last used last; None for a recording that cannot be used.
        self._kept: OrderedDict[str, Float32 | None] = OrderedDict()

    def draw(self, machine: str | None, rng: np.random.Generator) -> Float32 | None:
        """A noise clip of that machine; of any, if that has none or is None. Not to be written to.

        None where there is no noise at all, and for a recording that cannot be used.
        """
        candidates = (None if machine is None else self.of_machine.get(machine)) or self.all
        if not candidates:
            return None
        clip = candidates[int(rng.integers(len(candidates)))]
        if clip.clip_id in self._kept:
            self._kept.move_to_end(clip.clip_id)
            return self._kept[clip.clip_id]
        try:
            noise_S: Float32 | None = self.read(clip)
        except AudioError:
            noise_S = None
        self._kept[clip.clip_id] = noise_S
        while sum(kept.nbytes for kept in self._kept.values() if kept is not None) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return noise_S

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict()}

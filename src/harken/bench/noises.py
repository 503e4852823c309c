"""Noise for stages that add it to clips; names of the files that they write, and what that costs."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from harken.audio.listen import listen
from harken.audio.mix import mix_at_snr
from harken.audio.write import SUBTYPES
from harken.bench.devices import fastest
from harken.core.errors import HarkenError
from harken.data.clips import Clip

Float32 = NDArray[np.float32]
#: `machine`: supplemental noise that was recorded for the clip's machine, that of all where it has none; `all`: of any
#: machine; `others`: training clips of other machines
NoiseSource = Literal["machine", "all", "others"]

#: decoded noise that is kept, in clips
KEPT = 64


def file_stem(clip_id: str) -> str:
    """Name of a made clip's file, without suffix."""
    return hashlib.sha256(clip_id.encode(errors="surrogatepass")).hexdigest()[:24]


class Noises:
    """Clips to be added to others, with those that were decoded last."""

    def __init__(self, clips: Sequence[Clip], of: NoiseSource) -> None:
        kind, split = ("machine", "train") if of == "others" else ("noise", "supplemental")
        chosen = [clip for clip in clips if clip.kind == kind and clip.split == split and clip.condition != "anomaly"]
        self.of = of
        self.all = sorted(chosen, key=lambda clip: clip.clip_id)
        self._kept: OrderedDict[tuple[str, int], Float32] = OrderedDict()

    def draw(self, clip: Clip, shape: tuple[int, ...], rate: int, rng: np.random.Generator) -> tuple[Clip, Float32]:
        """A noise clip and its sound of this shape (channels, samples), begun at any place and repeated where it is
        short. Raises HarkenError where there is no noise."""
        allowed = [noise for noise in self.all if (noise.machine == clip.machine) != (self.of == "others")]
        among = self.all if self.of == "all" or (self.of == "machine" and not allowed) else allowed
        if not among:
            others = self.of == "others"
            kind = "training clips of other machines" if others else "supplemental noise clips"
            step = "Choose noise: machine or all" if others else "Choose noise: others"
            raise HarkenError(f"there are no {kind} to mix with", file=clip.machine, next_step=step)
        noise = among[int(rng.integers(len(among)))]
        noise_CS = self._read(noise, rate)
        channels, samples = shape
        if len(noise_CS) != channels:
            noise_CS = np.repeat(noise_CS.mean(axis=0, keepdims=True, dtype=np.float32), channels, axis=0)
        start = int(rng.integers(noise_CS.shape[1]))
        return noise, np.resize(np.roll(noise_CS, -start, axis=1).T, (samples, channels)).T

    def _read(self, noise: Clip, rate: int) -> Float32:
        key = (noise.clip_id, rate)
        if key not in self._kept:
            self._kept[key] = listen(noise.path).at(rate)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


@lru_cache(maxsize=2)
def mixing_seconds(file_format: str) -> float:
    """Seconds that a copy of 10 s at 16 kHz, of one channel, takes; measured, with what reading it takes."""
    noise_CS = np.random.default_rng(0).normal(0, 0.1, size=(1, 160_000)).astype(np.float32)

    def mix() -> None:
        handle = io.BytesIO()
        sf.write(handle, mix_at_snr(noise_CS, noise_CS, 10.0).T, 16_000, SUBTYPES[file_format], format=file_format)
        handle.seek(0)
        sf.read(handle)

    return fastest(mix, 0.05)

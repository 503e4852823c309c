"""mix: noisy copies of training clips, to be learned from beside them."""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from pydantic import Field, field_validator

from harken.audio.listen import listen
from harken.audio.mix import mix_at_snr
from harken.audio.quality import SILENCE_DBFS, level_dbfs
from harken.bench.costs import Cost, PlannedStage
from harken.bench.devices import fastest
from harken.bench.expected import number_of
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.tables import Quarantined, write_clips
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip, derive
from harken.training.augment.random_state import rng_for

Float32 = NDArray[np.float32]

#: decoded noise that is kept, in clips
KEPT = 64


class MixStage(Stage):
    """`clips.parquet` and `audio/`: noisy copies of the normal training clips of all machines; `mixes.json`: of each
    copy the noise and the SNR in dB."""

    makes = "clips"
    scope = "all"
    seeded = True
    listens = True

    class Parameters(Settings):
        """snr_db: 10 log10(power of the clip / power of the noise that is added to it), drawn evenly between the two.
        copies: of each clip. noise: `machine`, supplemental noise that was recorded for the clip's machine, that of all
        where it has none; `all`, of any machine; `others`, training clips of other machines. machines: whose clips are
        copied; None is all. format: flac keeps 24 bits, wav is float; copies that pass full scale are float always.
        """

        snr_db: tuple[float, float] = (0.0, 10.0)
        copies: int = Field(1, ge=1)
        noise: Literal["machine", "all", "others"] = "machine"
        machines: tuple[str, ...] | None = None
        format: Literal["flac", "wav"] = "flac"

        @field_validator("snr_db")
        @classmethod
        def _in_order(cls, snr_db: tuple[float, float]) -> tuple[float, float]:
            if not (np.isfinite(snr_db).all() and snr_db[0] <= snr_db[1]):
                raise ValueError("two finite numbers, the lower one first")
            return snr_db

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Of mixing and writing, measured on noise; clips are read beside them."""
        cost = Cost(details={"clips": 0})
        for clips in planned.clips:
            chosen = _chosen(parameters, clips)
            if chosen:
                count = parameters.copies * number_of(chosen)
                seconds, channels, _ = planned.form(chosen)
                cost.seconds.append(count * channels * seconds / 10 * _mixing_seconds(parameters.format))
                cost.details["clips"] += count
        return cost

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        chosen = _chosen(parameters, context.clips)
        noises = _Noises(context.clips, parameters.noise)
        # Copies by other settings have other ids, so that several stages of this kind can be learned from together.
        settings = json.dumps([parameters.model_dump(mode="json"), context.seed], sort_keys=True)
        mark = hashlib.sha256(settings.encode()).hexdigest()[:8]
        (context.out / "audio").mkdir()
        copies: list[Clip] = []
        mixes: dict[str, dict[str, Any]] = {}
        aside: dict[str, Quarantined] = {}
        for number, clip in enumerate(chosen):
            try:
                sound = listen(clip.path)
                for copy in range(parameters.copies):
                    rng = rng_for(context.seed, copy, clip.clip_id, "mix")
                    snr_db = float(rng.uniform(*parameters.snr_db))
                    noise, noise_CS = noises.draw(clip, sound.wave_CS.shape, sound.sample_rate, rng)
                    if min(level_dbfs(sound.wave_CS), level_dbfs(noise_CS)) < SILENCE_DBFS:
                        raise AudioError(
                            f"cannot be mixed: it, or the noise {noise.clip_id}, is silent",
                            file=clip.path,
                            next_step="Remove the silent recording",
                        )
                    mixed_CS = mix_at_snr(sound.wave_CS, noise_CS, snr_db)
                    clip_id = f"{clip.clip_id}#mixed-{mark}-{copy}"
                    file = _write(context.out / "audio", clip_id, mixed_CS, sound.sample_rate, parameters.format)
                    channels, frames = mixed_CS.shape
                    copies.append(
                        derive(clip, clip_id, file, "mixed", others=(noise.clip_id,), sample_rate=sound.sample_rate,
                               channels=channels, frames=frames)
                    )  # fmt: skip
                    mixes[clip_id] = {"noise": noise.clip_id, "snr_db": snr_db}
            except AudioError as error:
                aside[clip.clip_id] = Quarantined(clip.clip_id, str(error))
            context.progress(number + 1, len(chosen))
        (context.out / "mixes.json").write_text(json.dumps(mixes, indent=1) + "\n")
        write_clips(context.out, copies, list(aside.values()))


def _chosen(parameters: Any, clips: Sequence[Clip]) -> list[Clip]:
    """Those that are copied."""
    return [
        clip
        for clip in clips
        if clip.split == "train" and clip.kind == "machine" and clip.condition == "normal"
        and (parameters.machines is None or clip.machine in parameters.machines)
    ]  # fmt: skip


@lru_cache(maxsize=2)
def _mixing_seconds(file_format: str) -> float:
    """Seconds that a copy of 10 s at 16 kHz, of one channel, takes; measured, with what reading it takes."""
    noise_CS = np.random.default_rng(0).normal(0, 0.1, size=(1, 160_000)).astype(np.float32)

    def mix() -> None:
        handle = io.BytesIO()
        sf.write(handle, mix_at_snr(noise_CS, noise_CS, 10.0).T, 16_000, _SUBTYPES[file_format], format=file_format)
        handle.seek(0)
        sf.read(handle)

    return fastest(mix, 0.05)


class _Noises:
    """Clips to be added to others, with those that were decoded last."""

    def __init__(self, clips: Sequence[Clip], of: str) -> None:
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


#: libsndfile's sample format by file format
_SUBTYPES: Mapping[str, str] = {"flac": "PCM_24", "wav": "FLOAT"}


def _write(folder: Path, clip_id: str, samples_CS: Float32, rate: int, file_format: str) -> Path:
    """A file that holds the samples as they are but for rounding at 24 bits; integers would clip beyond 1."""
    chosen = "wav" if np.abs(samples_CS).max() >= 1 else file_format
    file = folder / f"{hashlib.sha256(clip_id.encode(errors='surrogatepass')).hexdigest()[:24]}.{chosen}"
    sf.write(file, samples_CS.T, rate, subtype=_SUBTYPES[chosen])
    return file

"""Clips with noise added, as stages write them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from harken.audio.listen import Sound
from harken.audio.mix import mix_at_snr
from harken.audio.moments import level_dbfs
from harken.audio.quality import SILENCE_DBFS
from harken.audio.write import write_sound
from harken.bench.noises import Noises, file_stem
from harken.bench.stages.base import Context
from harken.bench.stages.tables import Quarantined, write_clips
from harken.core.errors import AudioError
from harken.core.json_text import json_text
from harken.data.clips import Clip, Kind, derive


class NoisyClips:
    """`clips.parquet`, `audio/` and `mixes.json`, of each clip the noise and the SNR in dB, of a stage that adds noise.

    parameters: of the stage, with `noise`, `snr_db` and `format`. kind: of the clips. mark: in their ids, before a
    digest of all parameters and the seed: those of other settings have other ids, so that several stages can be learned
    from together.
    """

    def __init__(self, context: Context, parameters: Any, *, kind: Kind, mark: str) -> None:
        settings = json_text([parameters.model_dump(mode="json"), context.seed], sort_keys=True)
        self.mark = f"{mark}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
        self.parameters, self.kind, self.out = parameters, kind, context.out
        self.noises = Noises(context.clips, parameters.noise)
        self.clips: list[Clip] = []
        self._mixes: dict[str, dict[str, Any]] = {}
        self._aside: dict[str, Quarantined] = {}
        (self.out / "audio").mkdir()

    def add(self, clip: Clip, sound: Sound, copy: int, rng: np.random.Generator) -> None:
        """Copy number `copy` of a clip, with noise. Raises AudioError where one of both is silent or unreadable."""
        snr_db = float(rng.uniform(*self.parameters.snr_db))
        noise, noise_CS = self.noises.draw(clip, sound.wave_CS.shape, sound.sample_rate, rng)
        if min(level_dbfs(sound.wave_CS), level_dbfs(noise_CS)) < SILENCE_DBFS:
            raise AudioError(
                f"cannot be mixed: it, or the noise {noise.clip_id}, is silent",
                file=clip.path,
                next_step="Remove the silent recording",
            )
        mixed_CS = mix_at_snr(sound.wave_CS, noise_CS, snr_db)
        clip_id = f"{clip.clip_id}#{self.mark}-{copy}"
        stem = self.out / "audio" / file_stem(clip_id)
        file = write_sound(stem, mixed_CS, sound.sample_rate, self.parameters.format)
        channels, frames = mixed_CS.shape
        self.clips.append(
            derive(clip, clip_id, file, self.kind, others=(noise.clip_id,), sample_rate=sound.sample_rate,
                   channels=channels, frames=frames)
        )  # fmt: skip
        self._mixes[clip_id] = {"noise": noise.clip_id, "snr_db": snr_db}

    def set_aside(self, clip: Clip, error: AudioError) -> None:
        """Report a clip that cannot be mixed."""
        self._aside[clip.clip_id] = Quarantined(clip.clip_id, str(error))

    def write(self) -> None:
        """Write the tables, when all are added."""
        (self.out / "mixes.json").write_text(json_text(self._mixes, indent=1) + "\n")
        write_clips(self.out, self.clips, list(self._aside.values()))

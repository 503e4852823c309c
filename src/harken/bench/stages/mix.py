"""mix: noisy copies of training clips, to be learned from beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from harken.audio.listen import listen
from harken.audio.mix import SnrRange, mix_at_snr
from harken.audio.quality import SILENCE_DBFS, level_dbfs
from harken.audio.write import write_sound
from harken.bench.costs import Cost, PlannedStage
from harken.bench.expected import number_of
from harken.bench.noises import Noises, NoiseSource, file_stem, mixing_seconds
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.tables import Quarantined, write_clips
from harken.core.errors import AudioError
from harken.core.json_text import json_text
from harken.data.clips import Clip, derive
from harken.training.augment.random_state import rng_for


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

        snr_db: SnrRange = (0.0, 10.0)
        copies: int = Field(1, ge=1)
        noise: NoiseSource = "machine"
        machines: tuple[str, ...] | None = None
        format: Literal["flac", "wav"] = "flac"

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Of mixing and writing, measured on noise; clips are read beside them."""
        cost = Cost(details={"clips": 0})
        for clips in planned.clips:
            chosen = _chosen(parameters, clips)
            if chosen:
                count = parameters.copies * number_of(chosen)
                seconds, channels, _ = planned.form(chosen)
                cost.seconds.append(count * channels * seconds / 10 * mixing_seconds(parameters.format))
                cost.details["clips"] += count
        return cost

    @classmethod
    def expected_clips(cls, parameters: Any, clips: Sequence[Clip]) -> Sequence[Clip]:
        """See `Stage.expected_clips`."""
        settings = parameters.model_dump_json()
        return [
            derive(clip, f"{clip.clip_id}#mixed-{settings}-{copy}", clip.path, "mixed")
            for clip in _chosen(parameters, clips)
            for copy in range(parameters.copies)
        ]

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        chosen = _chosen(parameters, context.clips)
        noises = Noises(context.clips, parameters.noise)
        # Copies by other settings have other ids, so that several stages of this kind can be learned from together.
        settings = json_text([parameters.model_dump(mode="json"), context.seed], sort_keys=True)
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
                    file = write_sound(
                        context.out / "audio" / file_stem(clip_id), mixed_CS, sound.sample_rate, parameters.format
                    )
                    channels, frames = mixed_CS.shape
                    copies.append(
                        derive(clip, clip_id, file, "mixed", others=(noise.clip_id,), sample_rate=sound.sample_rate,
                               channels=channels, frames=frames)
                    )  # fmt: skip
                    mixes[clip_id] = {"noise": noise.clip_id, "snr_db": snr_db}
            except AudioError as error:
                aside[clip.clip_id] = Quarantined(clip.clip_id, str(error))
            context.progress(number + 1, len(chosen))
        (context.out / "mixes.json").write_text(json_text(mixes, indent=1) + "\n")
        write_clips(context.out, copies, list(aside.values()))


def _chosen(parameters: Any, clips: Sequence[Clip]) -> list[Clip]:
    """Those that are copied."""
    return [
        clip
        for clip in clips
        if clip.split == "train" and clip.kind == "machine" and clip.condition == "normal"
        and (parameters.machines is None or clip.machine in parameters.machines)
    ]  # fmt: skip

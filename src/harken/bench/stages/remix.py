"""remix: separated machines mixed with noise again, to synthetic clips with as many of each domain as is wanted."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from harken.audio.listen import listen
from harken.audio.mix import SnrRange, mix_at_snr
from harken.audio.quality import SILENCE_DBFS, level_dbfs
from harken.audio.write import write_sound
from harken.bench.costs import Cost, PlannedStage
from harken.bench.expected import number_of
from harken.bench.noises import Noises, NoiseSource, file_stem, mixing_seconds
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.tables import Quarantined, write_clips
from harken.core.errors import AudioError, HarkenError
from harken.core.json_text import json_text
from harken.data.clips import Clip, derive
from harken.separation.sounds import machine_key
from harken.training.augment.random_state import rng_for


class RemixStage(Stage):
    """`clips.parquet` and `audio/`: synthetic clips of kind `generated`, each a separated training clip with noise;
    `mixes.json`: of each the noise and the SNR in dB (Zhong et al., DCASE 2025 report of USTC, section 2.1)."""

    makes = "clips"
    inputs: ClassVar = {"clips": Input("clips", many=True)}
    scope = "all"
    seeded = True
    listens = True

    class Parameters(Settings):
        """clips: their number, shared evenly by the machines that have separated clips. source_share: of those of each
        machine, how many are of its source domain, whatever share it had (4:1); where it has one domain, all are of it.
        snr_db: 10 log10(power of the machine / power of the noise), drawn evenly between the two; ours. noise: see
        `mix`. format: flac keeps 24 bits, wav is float.
        """

        clips: int = Field(10_000, ge=1)
        source_share: float = Field(0.8, ge=0, le=1)
        snr_db: SnrRange = (0.0, 10.0)
        noise: NoiseSource = "all"
        format: Literal["flac", "wav"] = "flac"

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Of mixing and writing, measured on noise; separated clips are as long as those of the machines."""
        rows = [clip for clips in planned.clips for clip in clips if clip.split == "train" and clip.kind == "machine"]
        if not rows:
            return Cost(details={"clips": parameters.clips})
        by_machine: dict[str, list[Clip]] = defaultdict(list)
        for clip in rows:
            by_machine[machine_key(clip)].append(clip)
        forms = [(number_of(clips), *planned.form(clips)) for clips in by_machine.values()]
        seconds = sum(channels * seconds for _, seconds, channels, _ in forms) / len(forms)
        return Cost(
            seconds=[parameters.clips * seconds / 10 * mixing_seconds(parameters.format)],
            details={"clips": parameters.clips},
        )

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        separated = [clip for clip in context.clips if clip.kind == "separated" and clip.split == "train"]
        if not separated:
            raise HarkenError(
                "there are no separated training clips to mix",
                next_step="Name a separate stage of the split train under from; machines without supplemental clips "
                "have none",
            )
        noises = Noises(context.clips, parameters.noise)
        settings = json_text([parameters.model_dump(mode="json"), context.seed], sort_keys=True)
        mark = hashlib.sha256(settings.encode()).hexdigest()[:8]
        (context.out / "audio").mkdir()
        clips: list[Clip] = []
        mixes: dict[str, dict[str, Any]] = {}
        aside: dict[str, Quarantined] = {}
        for number, (clip, copy) in enumerate(_chosen(separated, parameters.clips, parameters.source_share)):
            rng = rng_for(context.seed, copy, clip.clip_id, "remix")
            snr_db = float(rng.uniform(*parameters.snr_db))
            try:
                sound = listen(clip.path)
                noise, noise_CS = noises.draw(clip, sound.wave_CS.shape, sound.sample_rate, rng)
                if min(level_dbfs(sound.wave_CS), level_dbfs(noise_CS)) < SILENCE_DBFS:
                    raise AudioError(
                        f"cannot be mixed: it, or the noise {noise.clip_id}, is silent",
                        file=clip.path,
                        next_step="Remove the silent recording",
                    )
                mixed_CS = mix_at_snr(sound.wave_CS, noise_CS, snr_db)
                clip_id = f"{clip.clip_id}#remixed-{mark}-{copy}"
                file = write_sound(
                    context.out / "audio" / file_stem(clip_id), mixed_CS, sound.sample_rate, parameters.format
                )
                channels, frames = mixed_CS.shape
                clips.append(
                    derive(clip, clip_id, file, "generated", others=(noise.clip_id,), sample_rate=sound.sample_rate,
                           channels=channels, frames=frames)
                )  # fmt: skip
                mixes[clip_id] = {"noise": noise.clip_id, "snr_db": snr_db}
            except AudioError as error:
                aside[clip.clip_id] = Quarantined(clip.clip_id, str(error))
            context.progress(number + 1, parameters.clips)
        (context.out / "mixes.json").write_text(json_text(mixes, indent=1) + "\n")
        write_clips(context.out, clips, list(aside.values()))


def _chosen(separated: Sequence[Clip], count: int, source_share: float) -> Iterator[tuple[Clip, int]]:
    """Clips and numbers of their copies: as many of each machine as of any other, of each of its domains by share,
    and of each clip of a domain, to within one."""
    machines: dict[str, dict[bool, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(separated, key=lambda clip: clip.clip_id):
        machines[machine_key(clip)][clip.domain == "target"].append(clip)
    for number, (_, domains) in enumerate(sorted(machines.items())):
        of_machine = count // len(machines) + (number < count % len(machines))
        of_target = round((1 - source_share) * of_machine)
        if len(domains) == 1:
            of_target = of_machine if True in domains else 0
        for is_target, of_domain in ((False, of_machine - of_target), (True, of_target)):
            clips = domains.get(is_target, [])
            for row in range(of_domain):
                yield clips[row % len(clips)], row // len(clips)

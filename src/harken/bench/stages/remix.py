"""remix: separated machines mixed with noise again, to synthetic clips with as many of each domain as is wanted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from harken.audio.listen import listen
from harken.audio.mix import SnrRange
from harken.bench.costs import Cost, PlannedStage
from harken.bench.expected import number_of
from harken.bench.noises import NoiseSource, mixing_seconds
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.noisy_clips import NoisyClips
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
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
        noisy = NoisyClips(context, parameters, kind="generated", mark="remixed")
        for number, (clip, copy) in enumerate(_chosen(separated, parameters.clips, parameters.source_share)):
            try:
                noisy.add(clip, listen(clip.path), copy, rng_for(context.seed, copy, clip.clip_id, "remix"))
            except AudioError as error:
                noisy.set_aside(clip, error)
            context.progress(number + 1, parameters.clips)
        noisy.write()


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

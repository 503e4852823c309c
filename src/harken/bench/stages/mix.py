"""mix: noisy copies of training clips, to be learned from beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from harken.audio.listen import listen
from harken.audio.mix import SnrRange
from harken.bench.costs import Cost, PlannedStage
from harken.bench.expected import number_of
from harken.bench.noises import NoiseSource, mixing_seconds
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.noisy_clips import NoisyClips
from harken.core.errors import AudioError
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
    def expected_clips(
        cls, parameters: Any, clips: Sequence[Clip], inputs: Mapping[str, tuple[Any, ...]]
    ) -> Sequence[Clip]:
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
        noisy = NoisyClips(context, parameters, kind="mixed", mark="mixed")
        for number, clip in enumerate(chosen):
            try:
                sound = listen(clip.path)
                for copy in range(parameters.copies):
                    noisy.add(clip, sound, copy, rng_for(context.seed, copy, clip.clip_id, "mix"))
            except AudioError as error:
                noisy.set_aside(clip, error)
            context.progress(number + 1, len(chosen))
        noisy.write()


def _chosen(parameters: Any, clips: Sequence[Clip]) -> list[Clip]:
    """Those that are copied."""
    return [
        clip
        for clip in clips
        if clip.split == "train" and clip.kind == "machine" and clip.condition == "normal"
        and (parameters.machines is None or clip.machine in parameters.machines)
    ]  # fmt: skip

"""train_separator: networks learn to take machines and factory noise apart, from supplemental clips."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harken.bench import estimate
from harken.bench.costs import Cost, PlannedStage, training_cost
from harken.bench.expected import number_of
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.tables import Quarantined, write_ids
from harken.bench.stages.trainings import chosen_years
from harken.core.extras import require_packages
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.separation.config import SIZES, SepReformerConfig
from harken.separation.settings import SeparationSpec
from harken.separation.sounds import Mode, sounds_of


class TrainSeparatorStage(Stage):
    """`guided.safetensors`, for machines with clean clips, and `invariant.safetensors`, for those with noise clips
    only, see `train_separators`; `separators.json`: the file of each machine, which is missing for those that have
    neither; `history.json`: loss and improvement over the steps of each."""

    version = 2

    makes = "separator"
    scope = "all"
    seeded = True
    spread = True
    listens = True
    accelerated = True

    class Parameters(Settings):
        """size: see `SIZES`; config: what is changed of it. years: whose clips are learned from; None is all. training:
        see `SeparationSpec`, whose seed is the run's. threads: of the processor; another number gives other
        rounding."""

        size: Literal["tiny", "base", "large"] = "base"
        config: dict[str, Any] = Field(default_factory=dict)
        years: tuple[int, ...] | None = None
        training: SeparationSpec
        threads: int = 1
        save_every: int = 500

        def architecture(self) -> SepReformerConfig:
            """The network. Raises ValueError for one that cannot be."""
            return SepReformerConfig.model_validate({**SIZES[self.size].model_dump(), **self.config})

        def model_post_init(self, context: Any) -> None:
            """Refuse an architecture that cannot be."""
            self.architecture()

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        require_packages(("torch", "accelerate"), "trainings")
        return {}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Of all steps of all rounds; clips are read beside them."""
        training = parameters.training
        clips = chosen_years(parameters.years, [clip for rows in planned.clips for clip in rows])
        rounds = _rounds(clips, training, planned.expected)
        steps = training.steps * sum(rounds.values())
        supplemental = number_of(clip for clip in clips if clip.kind in ("clean", "noise"))
        details = {
            "clips": supplemental, "steps": steps, "batch": training.batch, "accumulation": training.accumulation,
            "separators": list(rounds),
        }  # fmt: skip
        if estimate.why_not() is not None:
            return Cost(details=details)
        counts = estimate.count_separator(parameters.architecture(), training.seconds, training.batch)
        work = estimate.step_work(counts, training) * steps
        return training_cost(planned, counts, training, work, threads=parameters.threads, tasks=1, details=details)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        from harken.core.threads import torch_threads
        from harken.separation.training import train_separators

        training = parameters.training.model_copy(update={"seed": context.seed})
        clips = chosen_years(parameters.years, context.clips)
        with torch_threads(parameters.threads):
            trained = train_separators(
                parameters.architecture(), training, clips, context.scratch, save_every=parameters.save_every,
                logs=context.logs, progress=lambda step, steps, loss: context.progress(step, steps),
            )  # fmt: skip
        file_of: dict[str, str] = {}
        evaluations: list[dict[str, Any]] = []
        aside: dict[str, str] = {}
        for mode, result in trained.items():
            shutil.copyfile(result.file, context.out / f"{mode}.safetensors")
            file_of |= dict.fromkeys(result.separator.machines, f"{mode}.safetensors")
            evaluations += [
                {"mode": mode, "round": number + 1, **asdict(row)}
                for number, rows in enumerate(result.history)
                for row in rows
            ]
            aside |= result.quarantined
        write_separators(context.out, file_of)
        (context.out / "history.json").write_text(json_text({"evaluations": evaluations}, indent=1) + "\n")
        ids = [clip.clip_id for clip in clips if clip.clip_id not in aside]
        write_ids(context.out, ids, [Quarantined(clip_id, reason) for clip_id, reason in sorted(aside.items())])


def _rounds(clips: Sequence[Clip], training: SeparationSpec, expected: bool) -> dict[Mode, int]:
    """Rounds of the separators that these clips are enough for. expected: supplemental clips, of which it is not known
    whether they are clean or noise, are of both kinds."""
    modes = {machine.mode for machine in sounds_of(clips).values()}
    rounds: dict[Mode, int] = {"guided": training.rounds, "invariant": 1}
    return {mode: count for mode, count in rounds.items() if mode in modes or (expected and modes != {None})}


def write_separators(folder: Path, file_of: dict[str, str]) -> None:
    """Names of the separators' files in the folder, by machine (`separation.sounds.machine_key`)."""
    (folder / "separators.json").write_text(json_text(file_of, indent=1, sort_keys=True) + "\n")


def read_separators(folder: Path) -> dict[str, Path]:
    """Files of `write_separators`."""
    return {key: folder / name for key, name in json.loads((folder / "separators.json").read_text()).items()}

"""train_diffusion: a small diffusion model learns the spectrograms of all machines' normal clips."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

from harken.bench import estimate
from harken.bench.costs import Cost, PlannedStage, training_cost
from harken.bench.expected import number_of
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.trainings import chosen_years, write_training
from harken.core.extras import require_packages
from harken.generation.conditions import normal_clips
from harken.generation.diffusion_settings import SIZES, DiffusionConfig, DiffusionSpec, FrontEndSpec


class TrainDiffusionStage(Stage):
    """`generator.json` and `diffusion.safetensors`: a generator of spectrograms, conditioned on the conditions of the
    normal training clips; `history.json`: loss over the steps; `training.json`: all that shaped it. Its logs have
    `made_with.json`: versions and machine (THUEE, DCASE 2025, section 3.2)."""

    makes = "generator"
    scope = "all"
    seeded = True
    spread = True
    listens = True
    accelerated = True

    class Parameters(Settings):
        """size: see `SIZES`; config: what is changed of it. front_end: of the encoder that is to learn from what is
        generated. years: whose clips are learned from; None is all. training: see `DiffusionSpec`, whose seed is the
        run's. threads: of the processor; another number gives other rounding."""

        size: Literal["tiny", "compact", "small"] = "small"
        config: dict[str, Any] = Field(default_factory=dict)
        front_end: FrontEndSpec = FrontEndSpec()
        years: tuple[int, ...] | None = None
        training: DiffusionSpec
        threads: int = 1
        save_every: int = 500

        def architecture(self) -> DiffusionConfig:
            """The network. Raises ValueError for one that cannot be."""
            return DiffusionConfig.model_validate({**SIZES[self.size].model_dump(), **self.config})

        def model_post_init(self, context: Any) -> None:
            """Refuse an architecture that cannot be."""
            self.architecture()

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        require_packages(("torch", "accelerate", "diffusers"), "trainings of generators")
        return {}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Of all steps; clips are read beside them."""
        training = parameters.training
        by_condition = normal_clips(chosen_years(parameters.years, [clip for rows in planned.clips for clip in rows]))
        details = {
            "clips": sum(map(number_of, by_condition.values())), "classes": len(by_condition), "steps": training.steps,
            "batch": training.batch, "accumulation": training.accumulation,
        }  # fmt: skip
        if estimate.why_not() is not None:
            return Cost(details=details)
        counts = estimate.count_diffusion(
            parameters.architecture(), parameters.front_end, training.seconds, training.batch
        )
        work = estimate.step_work(counts, training) * training.steps
        return training_cost(planned, counts, training, work, threads=parameters.threads, tasks=1, details=details)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        from harken.core.threads import torch_threads
        from harken.generation.diffusion_training import train_diffusion

        with torch_threads(parameters.threads):
            done = train_diffusion(
                parameters.architecture(), parameters.front_end,
                parameters.training.model_copy(update={"seed": context.seed}),
                chosen_years(parameters.years, context.clips), context.scratch, save_every=parameters.save_every,
                workers=context.workers - 1, logs=context.logs,
                progress=lambda step, steps, loss: context.progress(step, steps),
            )  # fmt: skip
        for file in sorted(done.folder.iterdir()):
            shutil.copyfile(file, context.out / file.name)
        write_training(context, [asdict(row) for row in done.history], done.clips, done.quarantined)

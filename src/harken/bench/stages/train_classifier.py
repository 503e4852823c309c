"""train_classifier: an Xception learns to tell the conditions of all machines' normal clips apart."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import Any, Literal

from harken.bench import estimate
from harken.bench.costs import Cost, PlannedStage, training_cost
from harken.bench.expected import number_of
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.trainings import chosen_years, write_training
from harken.core.extras import require_packages
from harken.generation.conditions import normal_clips
from harken.generation.diffusion_settings import FrontEndSpec, XceptionSpec
from harken.generation.xception_settings import XCEPTION_SIZES


class TrainClassifierStage(Stage):
    """`classifier.safetensors`: an Xception for stage screen, with what it says of held-out real clips; `history.json`:
    loss over the steps; `training.json`: all that shaped it. Its logs have `made_with.json`: versions and machine
    (THUEE, DCASE 2025, section 3.2)."""

    makes = "classifier"
    scope = "all"
    seeded = True
    spread = True
    listens = True
    accelerated = True

    class Parameters(Settings):
        """size: see `XCEPTION_SIZES`. front_end, years, threads: as of train_diffusion. training: see `XceptionSpec`,
        whose seed is the run's."""

        size: Literal["tiny", "full"] = "full"
        front_end: FrontEndSpec = FrontEndSpec()
        years: tuple[int, ...] | None = None
        training: XceptionSpec
        threads: int = 1
        save_every: int = 500

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        require_packages(("torch", "accelerate"), "trainings of classifiers")
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
        config = XCEPTION_SIZES[parameters.size]
        counts = estimate.count_xception(
            config, max(len(by_condition), 2), parameters.front_end, training.seconds, training.batch
        )
        work = estimate.step_work(counts, training) * training.steps
        return training_cost(planned, counts, training, work, threads=parameters.threads, tasks=1, details=details)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        from harken.core.threads import torch_threads
        from harken.generation.xception_training import train_xception

        with torch_threads(parameters.threads):
            done = train_xception(
                XCEPTION_SIZES[parameters.size], parameters.front_end,
                parameters.training.model_copy(update={"seed": context.seed}),
                chosen_years(parameters.years, context.clips), context.scratch, save_every=parameters.save_every,
                workers=context.workers - 1, logs=context.logs,
                progress=lambda step, steps, loss: context.progress(step, steps),
            )  # fmt: skip
        for file in sorted(done.folder.iterdir()):
            shutil.copyfile(file, context.out / file.name)
        write_training(context, [asdict(row) for row in done.history], done.clips, done.quarantined)

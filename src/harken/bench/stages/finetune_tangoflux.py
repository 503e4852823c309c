"""finetune_tangoflux: a generator of sound learns the machines, from their clips and captions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from harken.bench import devices, estimate
from harken.bench.costs import Cost, PlannedStage, seconds_by_precision, training_cost
from harken.bench.expected import number_of
from harken.bench.generation_costs import count_codec, count_tangoflux
from harken.bench.stages.base import Context, Settings, Stage
from harken.bench.stages.trainings import chosen_years, write_training
from harken.core.extras import require_packages
from harken.data.clips import Clip
from harken.generation.conditions import normal_clips
from harken.generation.generator import write_generator
from harken.generation.tangoflux_settings import FinetuningSpec
from harken.generation.tangoflux_weights import PUBLISHED, checkpoints_of, published_files, weights_digest


class FinetuneTangoFluxStage(Stage):
    """`generator.safetensors` and `generator.json`, which stage `generate` reads; `history.json`: losses over the
    steps; `training.json`: all that shaped them. Normal training clips only; THUEE, section 3.1."""

    version = 2
    makes = "generator"
    scope = "all"
    seeded = True
    spread = True
    listens = True
    accelerated = True

    class Parameters(Settings):
        """weights: to begin with: `tangoflux`, or a folder with the published files; None: random ones of `size`.
        years: whose clips are learned from; None is all. training: see `FinetuningSpec`, whose seed is the run's.
        threads: of the processor; another number gives other rounding."""

        weights: str | None = "tangoflux"
        size: Literal["tiny", "full"] = "full"
        years: tuple[int, ...] | None = None
        training: FinetuningSpec
        threads: int = 1
        save_every: int = 500

    @classmethod
    def checkpoints(cls, parameters: Any) -> tuple[str, ...]:
        """See `Stage.checkpoints`."""
        return checkpoints_of(parameters.weights)

    @classmethod
    def check_files(cls, parameters: Any) -> None:
        """See `Stage.check_files`."""
        if parameters.weights not in (None, PUBLISHED):
            published_files(Path(parameters.weights))

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """Digest of the published weights. Raises WeightsError where they are missing."""
        require_packages(("torch", "accelerate", "diffusers", "transformers"), "generators of sound")
        return {"weights_sha256": weights_digest(parameters.weights)}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Of encoding all clips once, and of all steps."""
        training = parameters.training
        clips = _chosen(parameters, [clip for rows in planned.clips for clip in rows])
        count = number_of(clips)
        details = {
            "clips": count, "steps": training.steps, "batch": training.batch, "accumulation": training.accumulation,
        }  # fmt: skip
        if estimate.why_not() is not None:
            return Cost(details=details)
        counts = count_tangoflux(parameters.weights, parameters.size, training)
        work = estimate.step_work(counts, training) * training.steps
        cost = training_cost(
            planned, counts, training, work, threads=parameters.threads, tasks=1,
            details={**details, "learned_parameters": counts.trainable},
        )  # fmt: skip
        seconds = planned.form(clips)[0] if clips else 10.0
        encoding = count_codec(parameters.weights, parameters.size, seconds)[0].forward * count
        machine = devices.this_machine(parameters.threads)
        cost.seconds = [cost.seconds[0] + machine.seconds(encoding)]
        encoded = seconds_by_precision(planned.device, encoding, "fp32")["recipe"]
        cost.device_seconds = [{name: value + encoded for name, value in cost.device_seconds[0].items()}]
        return cost

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        from harken.core.threads import torch_threads
        from harken.generation.finetuning import finetune
        from harken.generation.tangoflux_files import create_tangoflux

        training = parameters.training.model_copy(update={"seed": context.seed})
        clips = _chosen(parameters, context.clips)
        with torch_threads(parameters.threads):
            done = finetune(
                create_tangoflux(parameters.weights, parameters.size, context.seed), parameters.size, training, clips,
                context.scratch, save_every=parameters.save_every, logs=context.logs,
                progress=lambda step, steps, loss: context.progress(step, steps),
            )  # fmt: skip
        shutil.copyfile(done.file, context.out / done.file.name)
        write_generator(context.out, "tangoflux", weights=parameters.weights, size=parameters.size)
        write_training(context, [asdict(row) for row in done.history], clips, done.quarantined)


def _chosen(parameters: Any, clips: Sequence[Clip]) -> list[Clip]:
    """Normal training clips of the chosen years."""
    rows = [clip for of_condition in normal_clips(clips).values() for clip in of_condition]
    return chosen_years(parameters.years, rows)

"""pretrain: an encoder learns from sound without labels."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from harken.audio.suffixes import DEFAULT_SUFFIXES
from harken.bench import estimate
from harken.bench.costs import Cost, PlannedStage, training_cost
from harken.bench.expected import number_of
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.pretrained import ENCODER_FILE, encoder_file, planned_student
from harken.bench.stages.tables import Quarantined, write_ids
from harken.core.errors import HarkenError
from harken.core.extras import require_packages
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.embeddings.embedder import weights_digest
from harken.encoders.checkpoints import weights_for
from harken.training.model_spec import PRETRAINED
from harken.training.pretrain.settings import PretrainingSpec, StudentSpec


class PretrainStage(Stage):
    """`encoder.safetensors`: weights that any stage takes; `history.json`: losses and deviations over the steps;
    `training.json`: all that shaped them. Its logs have `made_with.json`: versions and machine."""

    makes = "encoder"
    inputs: ClassVar = {"clips": Input("clips", optional=True, many=True), "encoder": Input("encoder", optional=True)}
    scope = "all"
    seeded = True
    spread = True
    listens = True
    accelerated = True

    class Parameters(StudentSpec, PretrainingSpec, Settings):
        """See `StudentSpec` and `PretrainingSpec`, whose seed is the run's. weights: to begin with; `pretrained`: those
        of another pretrain stage that it reads. years: whose training and supplemental clips are learned from; None is
        all, [] none. folders: of further sounds, at any depth, such as AudioSet. threads: of the processor; another
        number gives other rounding."""

        years: tuple[int, ...] | None = None
        folders: tuple[str, ...] = ()
        threads: int = 1
        save_every: int = 500

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """Digest of the weights, and of names and sizes of the files in `folders`."""
        require_packages(("torch", "accelerate"), "pre-training")
        identity: dict[str, Any] = {"files_sha256": [_listing_digest(Path(folder)) for folder in parameters.folders]}
        if parameters.weights not in (None, PRETRAINED):
            identity["weights_sha256"] = weights_digest(weights_for(parameters.encoder, parameters.weights)[1])
        return identity

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost | None:
        """Of all steps."""
        student, spec = _specs(parameters)
        chosen = sum(number_of(_chosen(clips, parameters)) for clips in planned.clips[:1])
        # Folders that are missing are reported by `identity`.
        chosen += sum(1 for folder in parameters.folders if Path(folder).is_dir() for _ in _sounds(Path(folder)))
        details: dict[str, Any] = {
            "clips": chosen,
            "steps": spec.steps,
            "batch": spec.batch,
            "accumulation": spec.accumulation,
        }
        if estimate.why_not() is not None:
            return Cost(details=details)
        if student.weights == PRETRAINED:
            student = student.model_copy(update=planned_student(planned, student.encoder))
        counts = estimate.count_pretraining(student, spec)
        work = estimate.step_work(counts, spec) * spec.steps
        details["learned_parameters"] = counts.trainable
        return training_cost(
            planned, counts, spec, work, threads=parameters.threads, tasks=len(planned.clips), details=details
        )

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        from harken.core.threads import torch_threads
        from harken.training.pretrain.loop import pretrain

        student, spec = _specs(parameters)
        folders = context.folders("encoder")
        if (student.weights == PRETRAINED) != bool(folders):
            raise HarkenError(
                f"weights: {PRETRAINED} and a pretrain stage that is read go together",
                next_step="Name the stage under from, or other weights",
            )
        if folders:
            student = student.model_copy(update={"weights": str(encoder_file(folders, student.encoder))})
        clips = _chosen(context.clips, parameters)
        for number, folder in enumerate(parameters.folders):
            clips += _clips_of(Path(folder), f"folder {number}")
        with torch_threads(parameters.threads):
            done = pretrain(
                student,
                spec.model_copy(update={"seed": context.seed}),
                clips,
                context.scratch,
                save_every=parameters.save_every,
                workers=context.workers - 1,
                logs=context.logs,
                progress=lambda step, steps, loss: context.progress(step, steps),
            )
        for file in (done.file, *sorted(context.scratch.glob("encoder-*.safetensors"))):
            shutil.copyfile(file, context.out / file.name)
        shutil.copyfile(context.scratch / "training.json", context.out / "training.json")
        context.logs.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(context.scratch / "made_with.json", context.logs / "made_with.json")
        history = {"encoder": ENCODER_FILE, "evaluations": [asdict(row) for row in done.history]}
        (context.out / "history.json").write_text(json_text(history, indent=1) + "\n")
        aside = [Quarantined(clip_id, reason) for clip_id, reason in done.quarantined.items()]
        write_ids(context.out, [clip.clip_id for clip in clips if clip.clip_id not in done.quarantined], aside)


def _specs(parameters: Any) -> tuple[StudentSpec, PretrainingSpec]:
    values = parameters.model_dump()
    return (
        StudentSpec.model_validate({name: values[name] for name in StudentSpec.model_fields if name in values}),
        PretrainingSpec.model_validate({name: values[name] for name in PretrainingSpec.model_fields if name in values}),
    )


def _chosen(clips: Any, parameters: Any) -> list[Clip]:
    """Clips of the chosen years; those that stages have made always; never test clips or known anomalies."""
    return [
        clip
        for clip in clips
        if (not clip.recorded or parameters.years is None or clip.year in parameters.years)
        and clip.split != "test"
        and clip.condition != "anomaly"
    ]


def _sounds(folder: Path) -> Iterator[Path]:
    """Files of sound in a folder and below it, in order. Raises HarkenError where there is no such folder."""
    if not folder.is_dir():
        raise HarkenError("is not a folder", file=folder, next_step="Name a folder of sounds under folders")
    for name, below, files in os.walk(folder):
        below.sort()
        for file in sorted(files):
            if Path(file).suffix.lower() in DEFAULT_SUFFIXES:
                yield Path(name) / file


def _clips_of(folder: Path, name: str) -> list[Clip]:
    """Clips of a folder, whose ids do not depend on where it lies."""
    clips = [Clip(f"{name}/{file.relative_to(folder).as_posix()}", file, name) for file in _sounds(folder)]
    if not clips:
        raise HarkenError("has no sounds", file=folder, next_step="Name another folder under folders")
    return clips


def _listing_digest(folder: Path) -> str:
    """Of names and sizes: such corpora are too large to be read for it."""
    listing = [f"{file.relative_to(folder).as_posix()} {file.stat().st_size}" for file in _sounds(folder)]
    return hashlib.sha256("\n".join(listing).encode(errors="surrogatepass")).hexdigest()

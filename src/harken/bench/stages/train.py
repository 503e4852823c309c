"""train: a network learns to classify all machines' normal clips."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harken.bench import estimate
from harken.bench.costs import Cost, PlannedStage, passed, training_cost
from harken.bench.expected import number_of
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.pretrained import planned_model, pretrained_start
from harken.bench.stages.tables import Quarantined, by_section, checkpoint_file, write_ids
from harken.core.errors import AudioError, HarkenError
from harken.core.extras import require_packages
from harken.core.json_text import json_text
from harken.core.plugins import code_identity
from harken.data import catalog
from harken.data.catalog import Metric
from harken.data.clips import Clip
from harken.data.labels import ClassTable
from harken.detection import create_detector
from harken.embeddings.embedder import weights_digest
from harken.encoders.checkpoints import weights_for
from harken.evaluation.rules import SectionScores, section_numbers, summary
from harken.training.model_spec import PRETRAINED, ModelSpec
from harken.training.settings import TrainingSpec

if TYPE_CHECKING:
    from harken.training.checkpoints import Start
    from harken.training.models import ASDModel

Float32 = NDArray[np.float32]


class TrainStage(Stage):
    """`checkpoint-<step>.safetensors`; `history.json`: their names, the best first, loss and signals over the steps;
    `training.json`: all that shaped the training. Its logs have `made_with.json`: versions and machine."""

    version = 2

    makes = "model"
    inputs: ClassVar = {"labels": Input("labels"), "model": Input("model", optional=True),
                        "encoder": Input("encoder", optional=True, many=True),
                        "clips": Input("clips", optional=True, many=True)}  # fmt: skip
    scope = "all"
    seeded = True
    spread = True
    listens = True
    accelerated = True
    payloads: ClassVar = ("sound", "spectrogram")

    class Parameters(Settings):
        """model, training: see `ModelSpec` and `TrainingSpec`, whose seeds are the run's. threads: of the processor;
        another number gives other rounding. Branches with `weights: pretrained` begin with the encoder of a pretrain
        stage. checkpoint: which of those that the stage under `from` kept the training
        begins with, 0 being the best; its encoders are taken over, heads where they are alike."""

        model: ModelSpec
        training: TrainingSpec
        threads: int = 1
        save_every: int = 500
        checkpoint: int = Field(0, ge=0)

    @classmethod
    def checkpoints(cls, parameters: Any) -> tuple[str, ...]:
        """See `Stage.checkpoints`."""
        named = (branch.weights for branch in parameters.model.branches)
        return tuple(weights for weights in named if weights not in (None, PRETRAINED))

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        require_packages(("torch", "accelerate"), "trainings")
        named = [branch for branch in parameters.model.branches if branch.weights not in (None, PRETRAINED)]
        return {
            "weights_sha256": [weights_digest(weights_for(branch.encoder, branch.weights)[1]) for branch in named],
            **code_identity("", parameters.model_dump(mode="json")),
        }

    @classmethod
    def uses_test_labels(cls, parameters: Any) -> bool:
        return bool(parameters.training.choose == "dev")

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost | None:
        """Of all steps, and of the evaluations between them."""
        table, training = planned.input("labels").classes, parameters.training
        if table is None or not planned.clips:
            return None
        clips = planned.clips[0]
        done = passed(training, clips, table)
        details = {
            "classes": len(table), "clips": done.trained, "held_out": done.held_out, "steps": done.steps,
            "batch": training.batch, "accumulation": training.accumulation,
        }  # fmt: skip
        if estimate.why_not() is not None:
            return Cost(details=details)
        model = planned_model(parameters.model, planned)
        counts = estimate.count_training(model, training, len(table), table.attribute_free_classes)
        evaluated = done.held_out
        if training.choose == "dev":
            evaluated += number_of(clip for clip in clips if clip.split in ("train", "test") and clip.kind == "machine")
        work = estimate.step_work(counts, training) * done.steps + counts.forward * (evaluated * done.evaluations)
        details["learned_parameters"] = counts.trainable
        return training_cost(
            planned, counts, training, work, threads=parameters.threads, tasks=len(planned.clips), details=details
        )

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        from harken.core.threads import torch_threads
        from harken.training.loop import train

        table = ClassTable.read(context.folder("labels") / "classes.json")
        _check_same_clips(context.clips, table)
        labelled = [clip for clip in context.clips if clip.clip_id in table.class_of and clip.split != "test"]
        training = parameters.training.model_copy(update={"seed": context.seed})
        dev = None
        if cls.uses_test_labels(parameters):
            dev = _DevScore([clip for clip in context.clips if clip.recorded], training)
        model, start = pretrained_start(parameters.model, context.folders("encoder"))
        if start is not None and context.folders("model"):
            raise HarkenError(
                "begins with another training and with a pre-trained encoder", next_step="Leave one of them out of from"
            )
        with torch_threads(parameters.threads):
            done = train(
                model.model_copy(update={"seed": context.seed}),
                training,
                labelled,
                table,
                context.scratch,
                start=start or _start(context, parameters.checkpoint),
                dev=dev,
                save_every=parameters.save_every,
                workers=context.workers - 1,
                logs=context.logs,
                progress=lambda step, steps, loss: context.progress(step, steps),
            )
        for file in (*done.checkpoints, context.scratch / "training.json"):
            shutil.copyfile(file, context.out / file.name)
        context.logs.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(context.scratch / "made_with.json", context.logs / "made_with.json")
        history = {
            "checkpoints": [file.name for file in done.checkpoints],
            "tuned_on_test": done.tuned_on_test,
            "evaluations": [asdict(row) for row in done.history],
        }
        (context.out / "history.json").write_text(json_text(history, indent=1) + "\n")
        aside = [Quarantined(clip_id, reason) for clip_id, reason in done.quarantined.items()]
        write_ids(context.out, [clip.clip_id for clip in labelled if clip.clip_id not in done.quarantined], aside)


def _start(context: Context, checkpoint: int) -> Start | None:
    from harken.training.checkpoints import Start

    for folder in context.folders("model"):
        record = json.loads((folder / "training.json").read_text())["training"]
        return Start(checkpoint_file(folder, checkpoint), record["labels_sha256"])
    return None


def _check_same_clips(clips: Sequence[Clip], table: ClassTable) -> None:
    """HarkenError where the labels and the training were not given the same stages that make clips."""
    # Labels may be of some years only, and of these with all that was made of them.
    made = [clip for clip in clips if not clip.recorded and set(clip.parents[:1]) <= table.class_of.keys()]
    lacking = next((clip for clip in made if clip.parents and clip.clip_id not in table.class_of), None)
    if lacking is not None:
        raise HarkenError(
            f"the labels know no clip {lacking.clip_id}", next_step="Name the stage that makes it under from of labels"
        )
    ids = {clip.clip_id for clip in clips}
    unknown = next((clip_id for clip_id in table.class_of if clip_id not in ids), None)
    if unknown is not None:
        raise HarkenError(
            f"the labels know a clip {unknown} that is not trained on",
            next_step="Name the stage that makes it under from of the training too",
        )


class _DevScore:
    """Official score of a model on the test clips whose labels are known, by the rule of their year; the mean over sets
    of several years. 1-NN, by cosine, of each section."""

    def __init__(self, clips: Sequence[Clip], training: TrainingSpec) -> None:
        self.training = training
        machines: dict[tuple[str, int | None, str], list[Clip]] = defaultdict(list)
        for clip in clips:
            machines[clip.corpus, clip.year, clip.machine].append(clip)
        #: by rule and set: normal clips and labelled test clips of each section
        self.sets: dict[tuple[Metric, str], list[tuple[list[Clip], list[Clip]]]] = defaultdict(list)
        for (corpus, year, _), machine in machines.items():
            train, test = by_section(machine, split="train"), by_section(machine, split="test")
            for section, rows in test.items():
                labelled = [machine[row] for row in rows if machine[row].condition != "unknown"]
                normal = [machine[row] for row in train.get(section, [])]
                rule = _rule(year, labelled)
                if len(normal) >= 3 and _can_be_scored(rule, labelled):
                    self.sets[rule, f"{corpus} {year}"].append((normal, labelled))
        if not self.sets:
            raise HarkenError(
                "no test clips with labels to choose by", next_step="Choose checkpoints by loss or accuracy"
            )

    def __call__(self, model: ASDModel) -> Mapping[str, float]:
        from harken.embeddings.trained import TrainedEmbedder

        embed = TrainedEmbedder(model, self.training)
        scores = []
        for (rule, _), sections in self.sets.items():
            numbers = []
            for normal, labelled in sections:
                bank = [vector for _, vector in _embedded(embed, normal)]
                detector = create_detector("knn", {"space": "raw", "metric": "cosine"}).fit_to_score(bank)
                tested = _embedded(embed, labelled)
                scored = _joined([clip for clip, _ in tested], detector.score([vector for _, vector in tested]))
                numbers.append((scored.key, section_numbers(rule, scored)))
            scores.append(summary(rule, numbers)["official_score"])
        return {"official_score": float(np.mean(scores))}


def _rule(year: int | None, clips: Sequence[Clip]) -> Metric:
    """The rule of the year; of other corpora the present one where domains are known."""
    if year in catalog.years():
        return catalog.year(year).metric
    return "domain_generalization" if all(clip.domain != "unknown" for clip in clips) else "machine_id"


def _can_be_scored(rule: Metric, clips: Sequence[Clip]) -> bool:
    """Whether there are clips of every kind that the rule asks for."""
    if not clips:
        return False
    try:
        section_numbers(rule, _joined(clips, np.arange(len(clips), dtype=np.float64)))
    except ValueError:
        return False
    return True


def _joined(clips: Sequence[Clip], scores_N: NDArray[np.float64]) -> SectionScores:
    domains = {"source": 0, "target": 1, "unknown": -1}
    return SectionScores(
        clips[0].machine,
        clips[0].section,
        tuple(clip.path.name for clip in clips),
        scores_N,
        np.array([clip.condition == "anomaly" for clip in clips]),
        np.array([domains[clip.domain] for clip in clips]),
    )


def _embedded(embed: Callable[[Clip], Float32], clips: Sequence[Clip]) -> list[tuple[Clip, Float32]]:
    embedded = []
    for clip in clips:
        try:
            embedded.append((clip, embed(clip)))
        except AudioError:
            continue
    return embedded

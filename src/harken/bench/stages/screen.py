"""screen: generated clips that a classifier takes for what they were generated to be."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harken.bench.costs import Cost, PlannedStage
from harken.bench.expected import number_of
from harken.bench.noises import file_stem
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.generate import DETAILS, read_details
from harken.bench.stages.tables import Quarantined, checkpoint_file, write_clips
from harken.core.errors import HarkenError
from harken.core.extras import require_packages
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.encoders.accelerator import default_device
from harken.generation.conditions import ConditionKey
from harken.generation.screening import UNLEARNED, Classifier, Screened, confidence_limit, counts_by_condition, screen

if TYPE_CHECKING:
    from harken.embeddings.classifier import TrainedClassifier

#: what became of every clip
SCREENING = "screening.json"
#: clips whose classes are written to scratch together
PART = 64


class ScreenStage(Stage):
    """`clips.parquet` and `audio/`: the generated clips that are kept, with new ids and the parents that they had.

    `generated.json` of them, as of generate; `screening.json`: the limit of confidence, what became of every clip, and
    counts by condition; `notes.json`: conditions of which nothing was kept.

    A clip is kept if its predicted class is the intended one, and its confidence at most the limit
    (THUEE, DCASE 2025, section 3).
    """

    makes = "clips"
    inputs: ClassVar = {
        "clips": Input("clips", many=True), "classifier": Input("classifier", optional=True),
        "model": Input("model", optional=True), "labels": Input("labels", optional=True),
    }  # fmt: skip
    scope = "all"
    listens = True
    shards = True
    accelerated = True
    payloads: ClassVar = ("sound", "spectrogram")

    class Parameters(Settings):
        """classifier: `xception`, of a train_classifier stage; or `trained`, of a train stage and its labels, with the
        checkpoint chosen, 0 being the best. limit: highest confidence of clips that are kept. quantile: of the
        confidence on held-out real clips, which is the limit of an Xception where none is given; ours. device: cpu,
        cuda, or `auto`, a GPU if there is one."""

        classifier: Literal["xception", "trained"] = "xception"
        checkpoint: int = Field(0, ge=0)
        limit: float | None = Field(None, gt=0, le=1)
        quantile: float = Field(0.9, ge=0, le=1)
        device: Literal["auto", "cpu", "cuda"] = "auto"

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        require_packages(("torch",), "classifiers")
        return {}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Clips; one pass of a classifier per clip is little beside the passes that generate it, and left out."""
        return Cost(details={"clips": sum(number_of(_generated(clips)) for clips in planned.clips)})

    @classmethod
    def expected_clips(
        cls, parameters: Any, clips: Sequence[Clip], inputs: Mapping[str, tuple[Any, ...]]
    ) -> Sequence[Clip]:
        """All of them, the most that it can keep; see `Stage.expected_clips`."""
        mark = f"#screened-{parameters.model_dump_json()}"
        return [replace(clip, clip_id=f"{clip.clip_id}{mark}") for clip in _generated(clips)]

    @classmethod
    def run_shard(cls, parameters: Any, context: Context, index: int, count: int) -> None:
        screening = _Screening(parameters, context)
        for block in screening.blocks[index::count]:
            screening.rows(block)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        screening = _Screening(parameters, context)
        rows: list[Screened] = []
        for number, block in enumerate(screening.blocks):
            rows += screening.rows(block)
            context.progress(number + 1, len(screening.blocks))
        counts = counts_by_condition(rows)
        report = {
            "classifier": parameters.classifier, "most_confidence": screening.limit,
            "held_out_accuracy": screening.accuracy,
            "conditions": {name: asdict(count) for name, count in counts.items()},
            "clips": [asdict(row) for row in rows],
        }  # fmt: skip
        (context.out / SCREENING).write_text(json_text(report, indent=1) + "\n")
        notes = [
            f"screen: none of {count.made} generated clips of {name} is kept"
            + (f": {UNLEARNED}" if any(row.error == UNLEARNED for row in rows if row.condition == name) else "")
            for name, count in counts.items()
            if not count.kept
        ]
        if parameters.classifier == "xception" and screening.limit is None and rows:
            none_held = "no condition has ten clips to hold some out"
            why = none_held if screening.accuracy is None else "none of the held-out real clips is recognised"
            notes.append(f"screen: no limit of confidence, as {why}")
        if notes:
            (context.out / "notes.json").write_text(json_text(notes))
        _write_kept(context, parameters, screening.clips, rows)


def _write_kept(context: Context, parameters: Any, clips: Sequence[Clip], rows: Sequence[Screened]) -> None:
    details = {key: row for folder in context.folders("clips") for key, row in read_details(folder).items()}
    settings = parameters.model_dump(mode="json", exclude={"device"})
    # Kept by another classifier they have other ids, so that several such stages can be learned from together.
    mark = hashlib.sha256(json_text(settings, sort_keys=True).encode()).hexdigest()[:8]
    (context.out / "audio").mkdir()
    kept, kept_details = [], {}
    for clip, row in zip(clips, rows, strict=True):
        if row.verdict != "kept":
            continue
        clip_id = f"{clip.clip_id}#screened-{mark}"
        file = context.out / "audio" / f"{file_stem(clip_id)}{clip.path.suffix}"
        shutil.copyfile(clip.path, file)
        kept.append(replace(clip, clip_id=clip_id, path=file))
        kept_details[clip_id] = {**details.get(clip.clip_id, {}), "confidence": row.confidence}
    (context.out / DETAILS).write_text(json_text(kept_details, indent=1) + "\n")
    aside = [Quarantined(row.clip_id, row.error) for row in rows if row.error is not None]
    write_clips(context.out, kept, aside)


def _generated(clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.kind == "generated" and clip.split == "train"]


class _Screening:
    """clips: those that were generated. blocks: of them, each with a file in the scratch folder when it is done."""

    def __init__(self, parameters: Any, context: Context) -> None:
        self.context = context
        self.clips = _generated(context.clips)
        self.blocks = [self.clips[start : start + PART] for start in range(0, len(self.clips), PART)]
        self.accuracy: float | None = None
        self.limit: float | None = parameters.limit
        device = default_device() if parameters.device == "auto" else parameters.device
        self.classifier: Classifier
        needed = ("classifier",) if parameters.classifier == "xception" else ("model", "labels")
        for name in needed:
            if not context.folders(name):
                raise HarkenError(
                    f"a screen stage with classifier: {parameters.classifier} reads {' and '.join(needed)}",
                    next_step="Name the stage that makes it under from",
                )
        if parameters.classifier == "xception":
            from harken.generation.xception_classifier import XceptionClassifier

            loaded = XceptionClassifier.load(context.folder("classifier"), device=device)
            self.classifier, self.accuracy = loaded, loaded.held_out.accuracy
            if self.limit is None:
                self.limit = confidence_limit(loaded.held_out.confidences, parameters.quantile)
        else:
            self.classifier = _LabelledClassifier(parameters, context, device)

    def rows(self, block: Sequence[Clip]) -> list[Screened]:
        """What becomes of the clips of a block."""
        listed = hashlib.sha256(json_text([clip.clip_id for clip in block]).encode()).hexdigest()[:24]
        file: Path = self.context.scratch / f"screened-{listed}.json"
        if not file.is_file():
            rows = screen(block, self.classifier, self.limit)
            write_atomically(file, json_text([asdict(row) for row in rows]).encode())
        return [Screened(**row) for row in json.loads(file.read_text())]


class _LabelledClassifier:
    """A network of a train stage; a clip is intended to be of the class of its first parent."""

    def __init__(self, parameters: Any, context: Context, device: str) -> None:
        from harken.data.labels import UNUSED, ClassTable
        from harken.embeddings.classifier import TrainedClassifier
        from harken.training.settings import TrainingSpec

        folder = context.folder("model")
        record = json.loads((folder / "training.json").read_text())["training"]
        table = ClassTable.read(context.folder("labels") / "classes.json")
        self.loaded: TrainedClassifier = TrainedClassifier.load(
            checkpoint_file(folder, parameters.checkpoint), TrainingSpec.model_validate(record["settings"]), table,
            device=device,
        )  # fmt: skip
        self.classes = table.classes
        self.class_of = {clip_id: label for clip_id, label in table.class_of.items() if label != UNUSED}
        self.probabilities = self.loaded.probabilities
        self.condition_of = {clip.clip_id: ConditionKey.of(clip) for clip in context.clips}

    def intended(self, clip: Clip) -> int | None:
        """The class of its first parent, if that is of its condition."""
        if not clip.parents or self.condition_of.get(clip.parents[0]) != ConditionKey.of(clip):
            return None
        return self.class_of.get(clip.parents[0])

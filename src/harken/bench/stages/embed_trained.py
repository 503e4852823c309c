"""embed_trained: one vector a recording, from a network that a train stage made."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harken.bench import estimate
from harken.bench.costs import Cost, PlannedStage, embedding_cost
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.embed import form_of
from harken.bench.stages.pretrained import planned_model
from harken.bench.stages.tables import Quarantined, checkpoint_file, write_embeddings
from harken.core.errors import AudioError, HarkenError
from harken.data.clips import Clip
from harken.embeddings.embedder import EmbeddingSpec, spec_as_recorded
from harken.encoders.accelerator import default_device

if TYPE_CHECKING:
    from harken.embeddings.trained import TrainedEmbedder
    from harken.training.settings import TrainingSpec

#: clips whose vectors are written to scratch together
PART = 32


class EmbedTrainedStage(Stage):
    """`embeddings.safetensors` and `clips.json`, as of embed."""

    version = 2
    makes = "embeddings"
    inputs: ClassVar = {"model": Input("model"), "clips": Input("clips", optional=True, many=True)}
    listens = True
    accelerated = True
    shards = True
    payloads: ClassVar = ("sound", "spectrogram")

    listens_for_others = True

    class Parameters(Settings):
        """checkpoint: which of those that were kept, 0 being the best. layers, pooling: see `TrainedEmbedder`.
        device: auto is a GPU where the run begins on a machine with one. precision: of the network; tf32 and bf16 are
        faster on GPUs, and give slightly different embeddings. On a GPU, recordings pass together."""

        checkpoint: int = Field(0, ge=0)
        layers: str | None = None
        pooling: str = "mean"
        device: str = "auto"
        precision: Literal["fp32", "tf32", "bf16"] = "fp32"

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        # Keys of objects in fp32 do not contain the precision, as before it was a setting.
        unchanged = {"precision"} if parameters.precision == "fp32" else set()
        return {"parameters": parameters.model_dump(mode="json", exclude=unchanged)}

    @classmethod
    def chosen_here(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """A GPU where there is one and the device is left to the machine; `auto` remains what a CPU does."""
        if parameters["device"] == "auto" and default_device() != "cpu":
            return {**parameters, "device": default_device()}
        return dict(parameters)

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost | None:
        """Of as many passes as a clip has windows."""
        source = planned.input("model")
        cost = Cost(details={"clips": planned.clip_count()})
        labels = source.inputs.get("labels", ())
        table = labels[0].classes if labels else None
        if table is None:
            return None
        if estimate.why_not() is not None:
            return cost
        training = source.parameters.training
        model = planned_model(source.parameters.model, source)
        counts = estimate.count_training(model, training, len(table), table.attribute_free_classes)
        return embedding_cost(
            planned, counts, lambda seconds: float(math.ceil(seconds / training.seconds)),
            precision=None if parameters.device == "cpu" else parameters.precision,
        )  # fmt: skip

    @classmethod
    def run_shard(cls, parameters: Any, context: Context, index: int, count: int) -> None:
        load = cache(partial(_load, context))
        for start in range(index * PART, len(context.clips), count * PART):
            _part(parameters, context, start, load)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        load = cache(partial(_load, context))
        kept, vectors, aside = [], [], []
        for start in range(0, len(context.clips), PART):
            vectors_of_shard, errors = _part(parameters, context, start, load)
            clips = context.clips[start : start + PART]
            kept += [clip.clip_id for row, clip in enumerate(clips) if row not in errors]
            vectors += list(vectors_of_shard)
            aside += [Quarantined(clips[row].clip_id, text) for row, text in errors.items()]
            context.progress(start + len(clips), len(context.clips))
        write_embeddings(context.out, context.clips[0].machine, kept, vectors, aside)


#: vectors of the clips of a part, and why others have none, by their row in it
_Part = tuple[NDArray[np.float32], dict[int, str]]


def _part(parameters: Any, context: Context, start: int, load: Callable[[Any], TrainedEmbedder]) -> _Part:
    """The part that begins with the clip `start`; kept in scratch, and so are those of the tasks beside this one."""
    from harken.core.threads import torch_threads
    from harken.embeddings.trained import embed_together

    file = f"clips-{start:06d}.safetensors"
    kept = _read_part(context.scratch / file)
    if kept is not None:
        return kept
    with torch_threads(1):
        embedders = [(load(parameters), context.scratch / file)]
        for sibling in context.beside:
            if _read_part(sibling.scratch / file) is None:
                # What is wrong with another task is an error of that task alone.
                with suppress(HarkenError):
                    embedders.append((load(sibling.parameters), sibling.scratch / file))
        clips = context.clips[start : start + PART]
        rows = embed_together([embedder for embedder, _ in embedders], clips)
    for (_, path), embedded in zip(embedders[1:], rows[1:], strict=True):
        _write_part(path, embedded)
    return _write_part(context.scratch / file, rows[0])


def _read_part(file: Path) -> _Part | None:
    """A part that is kept; None where it is not, or not whole."""
    from harken.training.checkpoints import read_arrays

    try:
        arrays, header = read_arrays(file)
        return arrays["vectors"], {int(row): text for row, text in header["errors"].items()}
    except (HarkenError, KeyError):
        return None


def _write_part(file: Path, embedded: Sequence[NDArray[np.float32] | AudioError]) -> _Part:
    from harken.training.checkpoints import write_arrays

    vectors = [vector_D for vector_D in embedded if not isinstance(vector_D, AudioError)]
    errors = {row: str(error) for row, error in enumerate(embedded) if isinstance(error, AudioError)}
    vectors_ND = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
    write_arrays(file, {"vectors": vectors_ND}, {"errors": errors})
    return vectors_ND, errors


def _load(context: Context, parameters: Any) -> TrainedEmbedder:
    import torch

    from harken.embeddings.trained import TrainedEmbedder

    device = ("cuda" if torch.cuda.is_available() else "cpu") if parameters.device == "auto" else parameters.device
    checkpoint, training = _trained(parameters, context.folder("model"))
    try:
        return TrainedEmbedder.load(
            checkpoint, training, layers=parameters.layers, pooling=parameters.pooling, device=device,
            precision=parameters.precision,
        )  # fmt: skip
    except ValueError as error:
        raise HarkenError(str(error), next_step="Correct the recipe") from error


def trained_embedding_of(
    parameters: Any, folder: Path, clips: Sequence[Clip], workers: int | None
) -> tuple[EmbeddingSpec, Mapping[str, np.ndarray]]:
    """How a stage with these parameters makes embeddings of a machine's clips, as a `TrainedEncoder`, and its weights.

    folder: of what a train stage made.
    """
    from harken.embeddings.trained import TrainedEmbedder

    checkpoint, training = _trained(parameters, folder)
    embedder = TrainedEmbedder.load(checkpoint, training, layers=parameters.layers, pooling=parameters.pooling)
    weights = dict(embedder.encoder.weights())
    rate, channels = form_of(clips, workers)
    spec = spec_as_recorded(
        embedder.encoder, sample_rate=rate, channels=channels, microphones=training.microphones, weights=weights
    )
    return spec, weights


def _trained(parameters: Any, folder: Path) -> tuple[Path, TrainingSpec]:
    """The checkpoint, and the settings of its training."""
    from harken.training.settings import TrainingSpec

    record = json.loads((folder / "training.json").read_text())
    checkpoint = checkpoint_file(folder, parameters.checkpoint)
    return checkpoint, TrainingSpec.model_validate(record["training"]["settings"])

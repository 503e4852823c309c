"""embed_trained: one vector a recording, from a network that a train stage made."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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
from harken.embeddings.embedder import EmbeddingSpec, weights_digest

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

    class Parameters(Settings):
        """checkpoint: which of those that were kept, 0 being the best. layers, pooling: see `TrainedEmbedder`.
        device: cpu, cuda, or `auto`, a GPU if there is one."""

        checkpoint: int = Field(0, ge=0)
        layers: str | None = None
        pooling: str = "mean"
        device: str = "auto"

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
        return embedding_cost(planned, counts, lambda seconds: float(math.ceil(seconds / training.seconds)))

    @classmethod
    def run_shard(cls, parameters: Any, context: Context, index: int, count: int) -> None:
        load = cache(partial(_load, parameters, context))
        for start in range(index * PART, len(context.clips), count * PART):
            _part(context, start, load)

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        load = cache(partial(_load, parameters, context))
        kept, vectors, aside = [], [], []
        for start in range(0, len(context.clips), PART):
            vectors_of_shard, errors = _part(context, start, load)
            clips = context.clips[start : start + PART]
            kept += [clip.clip_id for row, clip in enumerate(clips) if row not in errors]
            vectors += list(vectors_of_shard)
            aside += [Quarantined(clips[row].clip_id, text) for row, text in errors.items()]
            context.progress(start + len(clips), len(context.clips))
        write_embeddings(context.out, context.clips[0].machine, kept, vectors, aside)


def _part(
    context: Context, start: int, load: Callable[[], TrainedEmbedder]
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Vectors of the clips from `start`, and why others have none, by their row in the part; kept in scratch."""
    from harken.core.threads import torch_threads
    from harken.training.checkpoints import read_arrays, write_arrays

    file = context.scratch / f"clips-{start:06d}.safetensors"
    try:
        arrays, header = read_arrays(file)
        return arrays["vectors"], {int(row): text for row, text in header["errors"].items()}
    except (HarkenError, KeyError):
        pass  # not there, or not whole
    vectors: list[NDArray[np.float32]] = []
    errors: dict[int, str] = {}
    with torch_threads(1):
        embed = load()
        for row, clip in enumerate(context.clips[start : start + PART]):
            try:
                vectors.append(embed(clip))
            except AudioError as error:
                errors[row] = str(error)
    vectors_ND = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
    write_arrays(file, {"vectors": vectors_ND}, {"errors": errors})
    return vectors_ND, errors


def _load(parameters: Any, context: Context) -> TrainedEmbedder:
    import torch

    from harken.embeddings.trained import TrainedEmbedder

    device = ("cuda" if torch.cuda.is_available() else "cpu") if parameters.device == "auto" else parameters.device
    checkpoint, training = _trained(parameters, context.folder("model"))
    try:
        return TrainedEmbedder.load(
            checkpoint, training, layers=parameters.layers, pooling=parameters.pooling, device=device
        )
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
    spec = EmbeddingSpec(
        encoder=embedder.encoder.name,
        config=embedder.encoder.config(),
        layer=embedder.encoder.default_layer,
        pooling="mean",
        level="recorded",
        sample_rate=rate,
        channels=channels,
        microphones=training.microphones,
        mono=True,
        weights_sha256=weights_digest(weights),
    )
    return spec, weights


def _trained(parameters: Any, folder: Path) -> tuple[Path, TrainingSpec]:
    """The checkpoint, and the settings of its training."""
    from harken.training.settings import TrainingSpec

    record = json.loads((folder / "training.json").read_text())
    checkpoint = checkpoint_file(folder, parameters.checkpoint)
    return checkpoint, TrainingSpec.model_validate(record["training"]["settings"])

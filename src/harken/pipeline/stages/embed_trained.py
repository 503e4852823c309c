"""embed_trained: one vector a recording, from a network that a train stage made."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from harken.errors import AudioError, HarkenError
from harken.pipeline.stages.base import Context, Settings, Stage
from harken.pipeline.stages.tables import Quarantined, write_embeddings


class EmbedTrainedStage(Stage):
    """`embeddings.safetensors` and `clips.json`, as of embed."""

    makes = "embeddings"
    reads = ("model",)
    listens = True

    class Parameters(Settings):
        """checkpoint: which of those that were kept, 0 being the best. layers, pooling: see `TrainedEmbedder`.
        device: cpu, cuda, or `auto`, a GPU if there is one."""

        checkpoint: int = Field(0, ge=0)
        layers: str | None = None
        pooling: str = "mean"
        device: str = "auto"

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        import torch

        from harken.embeddings.trained import TrainedEmbedder
        from harken.training.settings import TrainingSpec
        from harken.training.threads import torch_threads

        about = json.loads((context.inputs[0] / "training.json").read_text())
        files = json.loads((context.inputs[0] / "history.json").read_text())["checkpoints"]
        if parameters.checkpoint >= len(files):
            raise HarkenError(
                f"there is no checkpoint {parameters.checkpoint}: the training kept {len(files)}",
                next_step="Evaluate more often (evaluate_every), or use fewer checkpoints",
            )
        device = ("cuda" if torch.cuda.is_available() else "cpu") if parameters.device == "auto" else parameters.device
        training = TrainingSpec.model_validate(about["training"]["settings"])
        kept, vectors, aside = [], [], []
        with torch_threads(1):
            try:
                embed = TrainedEmbedder.load(
                    context.inputs[0] / files[parameters.checkpoint],
                    training,
                    layers=parameters.layers,
                    pooling=parameters.pooling,
                    device=device,
                )
            except ValueError as error:
                raise HarkenError(str(error), next_step="Correct the recipe") from error
            for number, clip in enumerate(context.clips):
                try:
                    vectors.append(embed(clip))
                    kept.append(clip.clip_id)
                except AudioError as error:
                    aside.append(Quarantined(clip.clip_id, str(error)))
                context.progress(number + 1, len(context.clips))
        write_embeddings(context.out, context.clips[0].machine, kept, vectors, aside)

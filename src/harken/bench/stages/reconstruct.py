"""reconstruct: scores of a trained autoencoder."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from harken.bench.stages.autoencoder import frames_of
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.tables import Scored, by_section, read_arrays, read_ids, write_scores


class ReconstructStage(Stage):
    """`scores.parquet` of the test clips, decided at the gamma threshold that the training left."""

    makes = "scores"
    inputs: ClassVar = {"autoencoder": Input("autoencoder"), "frames": Input("frames")}

    class Parameters(Settings):
        """mode, variant: see `Reconstruction`."""

        mode: Literal["mse", "mahalanobis"] = "mse"
        variant: Literal["published", "paper"] = "published"

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        from harken.detection.reconstruction import Reconstruction

        folder = context.folder("frames")
        kept, _ = read_ids(folder)
        arrays = read_arrays(folder / "frames.safetensors")
        row_of = {clip_id: row for row, clip_id in enumerate(kept)}
        state = read_arrays(context.folder("autoencoder") / "model.safetensors")
        model = Reconstruction(mode=parameters.mode, variant=parameters.variant).restored(state)
        test = by_section(context.clips, split="test")
        clips = [context.clips[row] for rows in test.values() for row in rows if context.clips[row].clip_id in row_of]
        values = model.score([frames_of(arrays, row_of[clip.clip_id]) for clip in clips])
        write_scores(
            context.out,
            [
                Scored(
                    clip.clip_id, clip.machine, clip.section, clip.path.name, float(score), int(score > model.threshold)
                )
                for clip, score in zip(clips, values, strict=True)
            ],
        )
        (context.out / "thresholds.json").write_text(json.dumps({"all sections": model.threshold}))

"""reconstruct: scores of a trained autoencoder."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from harken.bench.stages.autoencoder import frames_of
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.tables import by_section, read_arrays, read_row_of, score_rows
from harken.core.json_text import json_text
from harken.evaluation.scores import Scores, write_scores


class ReconstructStage(Stage):
    """`scores.parquet`: of the test clips, decided at the gamma threshold that the training left, and what there is of
    held-out scores: see `Reconstruction.held_out_`."""

    version = 2
    makes = "scores"
    brief = True
    inputs: ClassVar = {"autoencoder": Input("autoencoder"), "frames": Input("frames")}

    class Parameters(Settings):
        """mode, variant: see `Reconstruction`."""

        mode: Literal["mse", "mahalanobis"] = "mse"
        variant: Literal["published", "paper"] = "published"

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        from harken.detection.reconstruction import Reconstruction

        folder = context.folder("frames")
        arrays = read_arrays(folder / "frames.safetensors")
        row_of = read_row_of(folder)
        state = read_arrays(context.folder("autoencoder") / "model.safetensors")
        model = Reconstruction(mode=parameters.mode, variant=parameters.variant).restored(state)
        test = by_section(context.clips, split="test")
        clips = [context.clips[row] for rows in test.values() for row in rows if context.clips[row].clip_id in row_of]
        values = model.score([frames_of(arrays, row_of[clip.clip_id]) for clip in clips])
        rows = score_rows(clips, values, model.threshold)
        held_out = json.loads((context.folder("autoencoder") / "held_out.json").read_text()).get(parameters.mode, {})
        available = [clip for clip in context.clips if clip.clip_id in held_out]
        rows += score_rows(available, [held_out[clip.clip_id] for clip in available])
        write_scores(Scores.of_rows(rows, fitted_on="machine"), context.out / "scores.parquet")
        (context.out / "thresholds.json").write_text(json_text({"all sections": model.threshold}))

"""concatenate: embeddings of several networks as one."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.tables import Quarantined, read_arrays, read_ids, write_arrays, write_ids
from harken.core.errors import HarkenError


class ConcatenateStage(Stage):
    """`embeddings.safetensors` and `clips.json`, as of embed; of clips that all of its inputs have."""

    makes = "embeddings"
    brief = True
    inputs: ClassVar = {"embeddings": Input("embeddings", many=True)}

    class Parameters(Settings):
        """weights: of the parts, each of unit length before; None is as much of each."""

        weights: tuple[float, ...] | None = None

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        folders = context.folders("embeddings")
        count = len(folders)
        weights = parameters.weights if parameters.weights is not None else (1.0,) * count
        if len(weights) != count:
            raise HarkenError(f"{count} parts need as many weights, not {len(weights)}", next_step="Correct weights")
        ids = [read_ids(folder)[0] for folder in folders]
        aside: dict[str, Quarantined] = {}
        for folder in folders:
            aside |= {row.clip_id: row for row in read_ids(folder)[1]}
        kept = [clip_id for clip_id in ids[0] if all(clip_id in clip_ids for clip_ids in map(set, ids))]
        blocks = []
        for folder, clip_ids, weight in zip(folders, ids, weights, strict=True):
            row_of = {clip_id: row for row, clip_id in enumerate(clip_ids)}
            rows_ND = read_arrays(folder / "embeddings.safetensors")["embeddings"][
                [row_of[clip_id] for clip_id in kept]
            ]
            length_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
            unit_ND = np.asarray(rows_ND / np.where(length_N1 > 0, length_N1, 1.0), dtype=np.float32)
            blocks.append(np.float32(weight) * unit_ND)
        write_arrays(context.out / "embeddings.safetensors", embeddings=np.concatenate(blocks, axis=1))
        write_ids(context.out, kept, list(aside.values()))

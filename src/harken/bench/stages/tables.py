"""Files that stages hand to each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.data.table import read_table, write_table
from harken.evaluation.scores import UNDECIDED, ScoreRow


@dataclass(frozen=True)
class Quarantined:
    """A recording that could not be used, and why."""

    clip_id: str
    reason: str


def write_arrays(file: Path, **arrays: NDArray[np.generic]) -> None:
    """Write arrays as one safetensors file."""
    file.write_bytes(safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(file: Path) -> dict[str, NDArray[np.generic]]:
    """Arrays of a safetensors file, by name."""
    return safetensors.numpy.load_file(file)


def write_ids(folder: Path, kept: Sequence[str], aside: Sequence[Quarantined]) -> None:
    """Which clips the rows of a stage's arrays are, and which could not be used."""
    text = json_text({"clips": list(kept), "quarantined": [asdict(row) for row in aside]}, indent=0)
    (folder / "clips.json").write_text(text)


def read_ids(folder: Path) -> tuple[list[str], list[Quarantined]]:
    """Clip ids of a stage's rows, and the recordings that it left out."""
    data = json.loads((folder / "clips.json").read_text())
    return data["clips"], [Quarantined(**row) for row in data["quarantined"]]


def read_row_of(folder: Path) -> dict[str, int]:
    """Row of each clip, by its id, in the arrays of a stage."""
    return {clip_id: row for row, clip_id in enumerate(read_ids(folder)[0])}


def write_clips(folder: Path, clips: Sequence[Clip], aside: Sequence[Quarantined] = ()) -> None:
    """Clips that a stage has made, whose files lie in `folder`; and the clips that it could not use."""
    write_table(clips, folder / "clips.parquet", beside=True)
    write_ids(folder, [clip.clip_id for clip in clips], aside)


def read_clips(folder: Path) -> list[Clip]:
    """Clips that a stage has made."""
    return read_table(folder / "clips.parquet")


def checkpoint_file(folder: Path, checkpoint: int) -> Path:
    """One of the checkpoints that a training kept, 0 being the best. HarkenError where it kept fewer."""
    files = json.loads((folder / "history.json").read_text())["checkpoints"]
    if checkpoint >= len(files):
        raise HarkenError(
            f"there is no checkpoint {checkpoint}: the training kept {len(files)}",
            next_step="Evaluate more often (evaluate_every), or use fewer checkpoints",
        )
    return folder / str(files[checkpoint])


def write_embeddings(
    folder: Path,
    machine: str,
    kept: Sequence[str],
    vectors: Sequence[NDArray[np.float32]],
    aside: Sequence[Quarantined],
) -> None:
    """One vector a clip, and which could not be used. Raises HarkenError where none could."""
    if not vectors:
        raise HarkenError("none of its recordings can be used", file=machine, next_step=aside[0].reason)
    write_arrays(folder / "embeddings.safetensors", embeddings=np.stack(vectors))
    write_ids(folder, kept, aside)


def score_rows(
    clips: Sequence[Clip], scores_N: Sequence[float] | NDArray[np.float64], threshold: float | None = None
) -> list[ScoreRow]:
    """Rows of the table of scores: of test clips, decided at a threshold, or held-out scores of training clips."""
    return [
        ScoreRow(
            clip.clip_id,
            clip.path.name,
            clip.machine,
            clip.section,
            "train" if clip.split == "train" else "test",
            float(score),
            UNDECIDED if threshold is None else int(score > threshold),
        )
        for clip, score in zip(clips, scores_N, strict=True)
    ]


def by_section(clips: Sequence[Clip], *, split: str, derived: bool = False) -> dict[str, list[int]]:
    """Rows of the usable clips of a split, by section. Training clips are normal clips of the machine itself.

    derived: training clips that were made of others too; test clips are recordings always.
    """
    rows_of: dict[str, list[int]] = {}
    for row, clip in enumerate(clips):
        usable = clip.recorded or (derived and split == "train")
        if split == "train":
            usable &= clip.condition == "normal" and (clip.kind == "machine" or not clip.recorded)
        if usable and clip.split == split:
            rows_of.setdefault(clip.section, []).append(row)
    return rows_of

"""generation_report: are generated clips any good? Real beside generated, to be seen and heard, and in numbers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harken.bench.costs import Cost, PlannedStage
from harken.bench.generation_page import ConditionRow, Shown, generation_page, read_examples
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.generate import read_details
from harken.bench.stages.screen import SCREENING
from harken.bench.stages.tables import read_arrays, read_clips, read_row_of, write_ids
from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.generation.conditions import ConditionKey, normal_clips
from harken.generation.likeness import likeness

Float32 = NDArray[np.float32]


class GenerationReportStage(Stage):
    """`report.html`: of each condition with generated clips, real clips beside them, pictures and players;
    `report.json`: the numbers of its table, see `Likeness`. Reads embeddings of all machines, of real and generated
    clips by one encoder, and the stages that made or screened the clips."""

    makes = "report"
    inputs: ClassVar = {"embeddings": Input("embeddings", many=True), "clips": Input("clips", many=True)}
    scope = "all"
    listens = True
    brief = True
    payloads: ClassVar = ("sound", "spectrogram")

    class Parameters(Settings):
        """title: of the page. pictured: conditions that are shown with pictures and players, those of fewest real clips
        first. examples: of real and of generated clips of each."""

        title: str = "Generated clips beside real ones"
        pictured: int = Field(12, ge=0)
        examples: int = Field(2, ge=1, le=10)

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Left out: seconds per condition."""
        return Cost()

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        vectors = _vectors(context.folders("embeddings"))
        real = normal_clips(context.clips)
        by_machine: dict[tuple[str, str], list[tuple[ConditionKey, Clip]]] = defaultdict(list)
        for key, clips in real.items():
            by_machine[key.corpus, key.machine] += [(key, clip) for clip in clips if clip.clip_id in vectors]
        rows: list[ConditionRow] = []
        clips_of: list[Sequence[Clip]] = []
        for source in _sources(context.folders("clips")):
            embedded = [clip for clip in source.clips if clip.clip_id in vectors]
            real_clips = by_machine[source.key.corpus, source.key.machine]
            if not embedded or not real_clips:
                continue
            rows.append(
                ConditionRow(
                    source.key,
                    made=source.made,
                    real=sum(condition == source.key for condition, _ in real_clips),
                    generated=len(embedded),
                    kept=source.kept,
                    likeness=likeness(
                        np.stack([vectors[clip.clip_id] for clip in embedded]),
                        np.stack([vectors[clip.clip_id] for _, clip in real_clips]),
                        [condition for condition, _ in real_clips],
                        source.key,
                    ),
                )
            )
            clips_of.append(source.clips)
        if not rows:
            raise HarkenError(
                "no generated clip has an embedding",
                next_step="Name the stages that make clips under from of embed, too",
            )
        chosen = sorted(range(len(rows)), key=lambda row: (rows[row].real, row))[: parameters.pictured]
        shown = []
        for count, row in enumerate(sorted(chosen)):
            shown.append(_shown(rows[row], real.get(rows[row].key, []), clips_of[row], parameters.examples))
            context.progress(count + 1, len(chosen))
        notes = []
        if len(chosen) < len(rows):
            notes.append(f"{len(chosen)} of {len(rows)} conditions are shown, those of fewest real clips.")
        page = generation_page(parameters.title, rows, shown, notes)
        (context.out / "report.html").write_text(page, encoding="utf-8")
        (context.out / "report.json").write_text(json_text([row.as_json() for row in rows], indent=1) + "\n")
        write_ids(context.out, sorted(vectors.keys() & {clip.clip_id for clip in context.clips}), [])


def _vectors(folders: Sequence[Path]) -> Mapping[str, Float32]:
    """Embedding of each clip, of all machines. Raises HarkenError where a clip has two."""
    vectors: dict[str, Float32] = {}
    for folder in folders:
        rows = read_arrays(folder / "embeddings.safetensors")["embeddings"]
        row_of = read_row_of(folder)
        twice = next((clip_id for clip_id in row_of if clip_id in vectors), None)
        if twice is not None:
            raise HarkenError(f"{twice} has two embeddings", next_step="Name one stage of embeddings under from")
        vectors |= {clip_id: rows[row] for clip_id, row in row_of.items()}
    return vectors


@dataclass(frozen=True)
class _Source:
    """Generated clips of a condition by one stage: all of them, or those that a screening kept. kept: their share."""

    key: ConditionKey
    made: str
    clips: list[Clip]
    kept: float | None


def _sources(folders: Sequence[Path]) -> Iterator[_Source]:
    """Of each stage and condition, all clips; then those that each screening kept, unless it kept none or all.

    Clips of a screening are copies of others: of these, the originals are looked at.
    """
    screenings = [verdicts for folder in folders if (verdicts := _kept_by(folder)) is not None]
    for number, folder in enumerate(folders):
        if _kept_by(folder) is not None:
            continue
        generators = {str(row["generator"]) for row in read_details(folder).values() if "generator" in row}
        made = " and ".join(sorted(generators)) or f"source {number + 1}"
        for key, clips in _generated(folder).items():
            rows = []
            for screened in screenings:
                judged = [clip for clip in clips if clip.clip_id in screened]
                if judged:
                    kept = [clip for clip in judged if screened[clip.clip_id]]
                    rows.append(_Source(key, f"{made}, screened", kept, len(kept) / len(judged)))
            yield _Source(key, made, clips, rows[0].kept if rows else None)
            yield from (row for row in rows if 0 < len(row.clips) < len(clips))


def _kept_by(folder: Path) -> dict[str, bool] | None:
    """Of each clip that a screen stage has judged, whether it kept it; None for another stage."""
    file = folder / SCREENING
    if not file.is_file():
        return None
    return {row["clip_id"]: row["verdict"] == "kept" for row in json.loads(file.read_text())["clips"]}


def _generated(folder: Path) -> dict[ConditionKey, list[Clip]]:
    """Generated training clips by condition."""
    clips_of: dict[ConditionKey, list[Clip]] = defaultdict(list)
    for clip in sorted(read_clips(folder), key=lambda clip: clip.clip_id):
        if clip.kind == "generated" and clip.split == "train":
            clips_of[ConditionKey.of(clip)].append(clip)
    return dict(sorted(clips_of.items()))


def _shown(row: ConditionRow, real: Sequence[Clip], generated: Sequence[Clip], count: int) -> Shown:
    recorded, notes = read_examples([(clip, f"real, {clip.path.stem}") for clip in real[:count]])
    made, further = read_examples([(clip, f"generated, {number + 1}") for number, clip in enumerate(generated[:count])])
    return Shown(row, recorded, made, (*notes, *further))

"""rare_conditions: which operating conditions get generated clips, and how many."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harken.bench.costs import Cost, PlannedStage
from harken.bench.expected import number_of
from harken.bench.stages.base import Context, Settings, Stage
from harken.core.errors import HarkenError, reading
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.generation.conditions import Condition, edited, rare_conditions, read_conditions, write_conditions


class RareConditionsStage(Stage):
    """`conditions.csv`: every condition (machine, section, domain, attributes) of the normal training clips, and how
    many clips are to be generated of it; edited, it can be given back as `table`. `notes.json`, where there is
    something to say. THUEE, section 3: "samples of rare working conditions"; the numbers are ours."""

    makes = "conditions"
    scope = "all"
    brief = True

    class Parameters(Settings):
        """share: of the clips of the machine's largest condition, to which smaller ones are filled up. factor:
        generated clips per real clip, at most. domains: that get clips. years: of the machines that do. table: a file
        with the numbers of all conditions, in place of these rules. unseen: it may name conditions without any clip;
        generators of sound from captions start from the nearest one, others refuse."""

        share: float = Field(0.5, gt=0, le=1)
        factor: float = Field(10.0, gt=0, le=1e6)
        domains: tuple[Literal["source", "target", "unknown"], ...] | None = None
        years: tuple[int, ...] | None = None
        table: str | None = None
        unseen: bool = False

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """The digest of the table, wherever it lies."""
        if parameters.table is None:
            return {}
        file = Path(parameters.table)
        with reading(file, "Name the edited table, or leave table out"):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return {"parameters": parameters.model_dump(mode="json", exclude={"table"}), "table_sha256": digest}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Rare conditions and clips to be generated; the time is left out."""
        rows = cls.conditions(parameters, [clip for clips in planned.clips for clip in clips])[0]
        rare = [row.generate for row in rows if row.generate]
        return Cost(details={"conditions": len(rare), "clips": sum(rare)})

    @classmethod
    def conditions(cls, parameters: Any, clips: Sequence[Clip]) -> tuple[list[Condition], list[str]]:
        """Conditions of these clips by the parameters, and notes; for plans of the stages that read them, too."""
        chosen = [clip for clip in clips if parameters.years is None or clip.year in parameters.years]
        rows = rare_conditions(
            chosen, share=parameters.share, factor=parameters.factor, domains=parameters.domains, count=number_of
        )
        if not rows:
            raise HarkenError(
                "there are no normal training clips to generate more of",
                next_step="Choose other years, or add machines",
            )
        if parameters.table is not None:
            file = Path(parameters.table)
            return edited(rows, read_conditions(file), file, unseen=parameters.unseen)
        if not any(row.generate for row in rows):
            return rows, [f"no condition has fewer than {parameters.share:g} of the clips of its machine's largest one"]
        return rows, []

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        rows, notes = cls.conditions(parameters, context.clips)
        write_conditions(rows, context.out / "conditions.csv")
        if notes:
            (context.out / "notes.json").write_text(json_text([f"rare_conditions: {note}" for note in notes]))

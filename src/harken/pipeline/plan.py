"""What a run would do, without doing it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from harken.errors import HarkenError
from harken.pipeline.graph import make_common, make_tasks, make_units
from harken.pipeline.recipe import Recipe
from harken.pipeline.run import load_clips
from harken.pipeline.stages import stage_class
from harken.pipeline.workspace import Object, Workspace


def make_plan(
    recipe: Recipe, data: Path | None, workspace: Path | None, *, machines: Collection[str] | None = None
) -> dict[str, Any]:
    """Stages with the number of their tasks and of those whose files are there (None without a workspace), units with
    their clips, and what is missing. Complete also without data and without weights."""
    missing: list[str] = []
    units, common = [], None
    if data is None:
        missing.append("data: name it with --data; harken data download gets it")
    else:
        try:
            clips = load_clips(data)[0]
            units, common = make_units(clips, machines), make_common(clips, machines)
        except HarkenError as error:
            missing.append(str(error))
    for name, entry in recipe.stages.items():
        cls = stage_class(entry.use)
        try:
            cls.identity(cls.Parameters.model_validate(entry.parameters))
        except HarkenError as error:
            missing.append(f"stage {name}: {error}")
    tasks = make_tasks(recipe, units, common)
    there: dict[str, Object] = {}
    if workspace is not None and (workspace / "objects").is_dir():
        here = Workspace(workspace)
        for task in tasks.values():
            try:
                if all(need in there for need in task.needs):
                    found = here.get(task.key([there[need].digest for need in task.needs]))
                    if found is not None:
                        there[task.name] = found
            except HarkenError:
                continue  # its weights are told as missing
    stages = [
        {
            "stage": name,
            "kind": entry.use,
            "reads": list(entry.inputs),
            "parameters": entry.parameters,
            "tasks": sum(task.stage == name for task in tasks.values()),
            "cached": None if workspace is None else sum(tasks[done].stage == name for done in there),
        }
        for name, entry in recipe.stages.items()
    ]
    told = [
        {
            "set": unit.set,
            "machine": unit.machine,
            "train": sum(clip.split == "train" for clip in unit.clips),
            "test": sum(clip.split == "test" for clip in unit.clips),
        }
        for unit in units
    ]
    return {"recipe": recipe.name, "stages": stages, "units": told, "missing": missing}

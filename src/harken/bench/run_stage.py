"""One stage of a recipe on data, with all that it needs and nothing after it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harken.bench.executor import Watch, run_tasks
from harken.bench.graph import make_common, make_tasks, make_units
from harken.bench.jobs import Executor
from harken.bench.recipe import Recipe
from harken.bench.result import Failed
from harken.bench.run import load_clips, notes_of, quarantined_of
from harken.bench.stages.tables import Quarantined
from harken.bench.unlearned import check_conditions
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError, TooFewError, did_you_mean
from harken.data.index import DataFinding
from harken.data.truth import Truth


@dataclass(frozen=True)
class StageRun:
    """What a stage made. objects: of the stage, by task. findings, quarantined, notes, failures: as of a run."""

    stage: str
    objects: dict[str, Object]
    findings: tuple[DataFinding, ...]
    quarantined: tuple[Quarantined, ...]
    notes: tuple[str, ...]
    failures: tuple[Failed, ...]


def run_stage(
    recipe: Recipe,
    data: Path,
    workspace: Workspace,
    stage: str,
    *,
    machines: Collection[str] | None = None,
    truth: Truth | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    watch: Watch = lambda event: None,
) -> StageRun:
    """Run the unfinished tasks of a stage and of those that it depends on; other arguments as of `run_recipe`.

    No scores are written and nothing is evaluated; a later run finds the stages in the workspace.
    Raises HarkenError, naming the nearest, for an unknown stage, and when all of its tasks have failed.
    """
    needed = recipe_up_to(recipe, stage)
    clips, findings = load_clips(data, truth)
    units = make_units(clips, machines, recipe.score_years)
    common = make_common(clips, machines, recipe.score_years)
    tasks = make_tasks(needed, units, common)
    check_conditions(needed, common["none"].clips)
    objects, failures = run_tasks(tasks, workspace, workers=workers, executor=executor, watch=watch)
    made = {name: thing for name, thing in objects.items() if tasks[name].stage == stage}
    failed = [Failed(each.task.name, each.error) for each in failures if not isinstance(each.error, TooFewError)]
    left_out = [str(each.error) for each in failures if isinstance(each.error, TooFewError)]
    if not made:
        raise failures[0].error
    return StageRun(
        stage,
        made,
        tuple(findings),
        tuple(quarantined_of(tasks, objects)),
        tuple(dict.fromkeys([*notes_of(objects), *left_out])),
        tuple(failed),
    )


def recipe_up_to(recipe: Recipe, stage: str) -> Recipe:
    """The stages of a recipe on which a stage depends, and itself; HarkenError, naming the nearest, if unknown."""
    if stage not in recipe.stages:
        raise HarkenError(f"{recipe.name} has no stage {stage!r}", next_step=did_you_mean(stage, sorted(recipe.stages)))
    needed = {stage}
    waiting = [stage]
    while waiting:
        new = [name for name in recipe.stages[waiting.pop()].inputs if name not in needed]
        needed |= {*new}
        waiting += new
    kept = {name: entry for name, entry in recipe.stages.items() if name in needed}
    return recipe.model_copy(update={"stages": kept, "systems": {}, "ensembles": {}, "submission": ()})

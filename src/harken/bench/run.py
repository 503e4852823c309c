"""A recipe on data: tasks, then score files, official results and a report, all below one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harken.bench.ensembles import Labels, mix_systems
from harken.bench.executor import Watch, run_tasks
from harken.bench.graph import (
    Task,
    Unit,
    is_evaluation,
    make_common,
    make_tasks,
    make_units,
    task_name,
)
from harken.bench.jobs import Executor
from harken.bench.marks import marks_of
from harken.bench.needed_weights import check_weights
from harken.bench.official import official_result, official_year, truth_of_tests
from harken.bench.recipe import Recipe
from harken.bench.result import Failed, Run, SystemScores
from harken.bench.run_names import add_names, check_run_name
from harken.bench.sections import check_sections
from harken.bench.stages import stage_class
from harken.bench.stages.tables import Quarantined, read_ids
from harken.bench.unlearned import check_conditions
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError, TooFewError
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.data.clips import Clip
from harken.data.index import DataFinding, index
from harken.data.table import read_table, write_table
from harken.data.truth import Truth
from harken.data.unique import check_names
from harken.ensemble.runs import SCORES
from harken.evaluation.score_files import write_score_files
from harken.evaluation.scores import Scores, digest_of, read_scores, write_scores


def load_clips(data: Path, truth: Truth | None = None) -> tuple[list[Clip], list[DataFinding]]:
    """Clips of a table made by `harken data index`, or of a folder.

    Raises HarkenError when there are none, and for two of one name, whose scores could not be told apart.
    """
    clips, findings = (read_table(data), []) if data.is_file() else index(data, truth=truth)
    check_names(clips)
    return clips, findings


def run_recipe(
    recipe: Recipe,
    data: Path,
    workspace: Workspace,
    *,
    machines: Collection[str] | None = None,
    truth: Truth | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    watch: Watch = lambda event: None,
    name: str | None = None,
    tags: Collection[str] = (),
) -> Run:
    """Run all unfinished tasks, and write score files, results and report to `workspace/runs/<recipe>-<digest>/`.

    data: folder or clips table. machines: leave out the others. truth: labels of evaluation clips, used for the
    official numbers only. executor: where stages run; None: in `workers` processes of this machine. The files depend on
    neither, nor on interruptions. name, tags: by which the run is found again, in `run.json`.
    Raises HarkenError when no system could be scored, for a name that another run of the workspace has, and, before
    anything runs, for weights that are not on this machine.
    """
    check_weights(recipe)
    clips, findings = load_clips(data, truth)
    units = make_units(clips, machines, recipe.score_years)
    common = make_common(clips, machines, recipe.score_years)
    tasks = make_tasks(recipe, units, common)
    check_sections(recipe, units)
    check_conditions(recipe, common["none"].clips)
    folder = workspace.root / "runs" / f"{recipe.name}-{_run_digest(recipe, [*units, common['none']])}"
    if name is not None:
        check_run_name(name, folder)
    with workspace.running():
        objects, failures = run_tasks(tasks, workspace, workers=workers, executor=executor, watch=watch)
    scored = _scored(recipe, units, common["labelled"], objects)
    left_out = [str(failure.error) for failure in failures if isinstance(failure.error, TooFewError)]
    failed = [Failed(each.task.name, each.error) for each in failures if not isinstance(each.error, TooFewError)]
    notes = list(dict.fromkeys([*notes_of(objects), *left_out]))
    if not any(len(table.test) for table in scored):
        if failed:
            raise failed[0].error
        raise HarkenError("no test clip could be scored", file=data, next_step=notes[0])
    for table in scored:
        if not len(table.test):
            error = HarkenError("no test clip could be scored", file=table.set, next_step="See what was left out")
            seed = "" if table.seed is None else f" seed {table.seed}"
            failed.append(Failed(table.system + seed, error))
    scored = [table for table in scored if len(table.test)]
    folder.mkdir(parents=True, exist_ok=True)
    _write_tasks(folder, tasks, objects)
    systems, unscored = _collect(units, clips, scored, folder, truth)
    run = Run(
        folder,
        recipe,
        tuple(units),
        tuple(clips),
        tuple(systems),
        tuple(quarantined_of(tasks, objects)),
        unscored,
        tuple(failed),
        tuple(findings),
        tuple(notes),
    )
    if recipe.ensembles:
        _write(run, report=False)
        run = _with_ensembles(run, truth, workspace)
    _write(run)
    _write_pages(folder, tasks, objects)
    add_names(folder, name, tags)
    return run


def _with_ensembles(run: Run, truth: Truth | None, workspace: Workspace) -> Run:
    """The run with its ensembles as further systems; those that could not be mixed are among the failures."""
    of_id = {clip.clip_id: clip for clip in run.clips}
    sets = list(dict.fromkeys(scored.set for scored in run.systems))
    labels = {}
    for label in sets:
        table = next(scored.scores for scored in run.systems if scored.set == label)
        clips = [of_id[clip_id] for clip_id in table.test.clip_id]
        set_truth = None if is_evaluation(label) else truth_of_tests(clips, truth)
        if set_truth is not None:
            labels[label] = Labels(set_truth, official_year(clips))
    systems, failures = list(run.systems), list(run.failures)
    for mixed in mix_systems(run.recipe, run.folder, [scored.scores for scored in run.systems], labels, workspace):
        if mixed.error is not None:
            failures.append(Failed(f"ensemble {mixed.name} of {mixed.set}", mixed.error))
            continue
        assert mixed.scores is not None
        result, why = official_result(mixed.scores, run.clips, truth)
        systems.append(SystemScores(mixed.scores, mixed.folder, result, why, mixed.mix))
    return replace(run, systems=tuple(systems), failures=tuple(failures))


def _scored(recipe: Recipe, units: Sequence[Unit], tests: Unit, objects: Mapping[str, Object]) -> list[Scores]:
    """Scores of each system, set and seed with at least one machine; machines in the order of their names.

    tests: test clips with the labels that stages may get.
    """
    labelled = {clip.machine for clip in tests.clips if clip.split == "test" and clip.condition != "unknown"}
    tables = []
    for system, stage in recipe.systems.items():
        for label in dict.fromkeys(unit.set for unit in units):
            machines = {unit.machine for unit in units if unit.set == label}
            marks = marks_of(recipe, stage, label, machines, labelled)
            for seed in (None, *recipe.seeds):
                made = {
                    unit.machine: objects[task_name(stage, unit, seed)]
                    for unit in units
                    if unit.set == label and task_name(stage, unit, seed) in objects
                }
                if made:
                    by_machine = [read_scores(made[machine].folder / "scores.parquet")[0] for machine in sorted(made)]
                    digest = digest_of({machine: table.digest for machine, table in made.items()})
                    tables.append(Scores.joined(by_machine, system, set=label, seed=seed, marks=marks, digest=digest))
    return tables


def _collect(
    units: Sequence[Unit], clips: Sequence[Clip], scored: Sequence[Scores], folder: Path, truth: Truth | None
) -> tuple[list[SystemScores], dict[str, tuple[str, ...]]]:
    """Write score and decision files and evaluate them."""
    several = len({unit.set for unit in units}) > 1
    systems, unscored = [], {}
    for table in scored:
        place = folder / "scores" / table.system
        place = place / f"seed_{table.seed}" if table.seed is not None else place
        place = place / table.set.replace(" ", "_") if several else place
        write_score_files(table, place)
        asked = [clip for unit in units if unit.set == table.set for clip in unit.clips if clip.recorded]
        expected = {clip.clip_id for clip in asked if clip.split == "test"}
        missing = tuple(sorted(expected - {*table.test.clip_id}))
        if missing:
            unscored[table.set] = missing
        result, why = official_result(table, clips, truth)
        systems.append(SystemScores(table, place, result, why))
    return systems, unscored


def quarantined_of(tasks: Mapping[str, Task], objects: Mapping[str, Object]) -> list[Quarantined]:
    """Recordings that stages could not use, by clip."""
    rows: dict[Quarantined, None] = {}
    for name, made in objects.items():
        if stage_class(tasks[name].kind).listens:
            rows |= dict.fromkeys(read_ids(made.folder)[1])
    return sorted(rows, key=lambda row: row.clip_id)


def notes_of(objects: Mapping[str, Object]) -> list[str]:
    """Notes of stages on what they left out."""
    notes: dict[str, None] = {}
    for made in objects.values():
        file = made.folder / "notes.json"
        if file.is_file():
            notes |= dict.fromkeys(json.loads(file.read_text()))
    return sorted(notes)


def _run_digest(recipe: Recipe, units: Sequence[Unit]) -> str:
    """Of the resolved recipe and the clips it runs on."""
    text = recipe.model_dump_json() + "".join(unit.name + unit.labels_digest() for unit in units)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _write(run: Run, *, report: bool = True) -> None:
    from harken.bench.report import report_page

    chosen = {clip.clip_id for unit in run.units for clip in unit.clips}
    write_table([clip for clip in run.clips if clip.clip_id in chosen], run.folder / "clips.parquet")
    files = {
        "recipe.yaml": run.recipe.as_yaml(),
        "results.json": json_text(run.as_json(), indent=1, sort_keys=True) + "\n",
    }
    if report:
        files["report.html"] = report_page(run)
    for name, text in files.items():
        write_atomically(run.folder / name, text.encode())
    write_scores([scored.scores for scored in run.systems], run.folder / SCORES)


def _write_pages(folder: Path, tasks: Mapping[str, Task], objects: Mapping[str, Object]) -> None:
    """The pages of stages that make a report: `pages/STAGE.html`, or `pages/STAGE-seed-0.html`."""
    for name, made in objects.items():
        task = tasks[name]
        if stage_class(task.kind).makes == "report":
            seed = f"-seed-{task.seed}" if name == task_name(task.stage, task.unit, task.seed) else ""
            seed = "" if task.seed is None else seed
            (folder / "pages").mkdir(exist_ok=True)
            page = (made.folder / "report.html").read_bytes()
            write_atomically(folder / "pages" / f"{task.stage}{seed}.html", page)


def _write_tasks(folder: Path, tasks: Mapping[str, Task], objects: Mapping[str, Object]) -> None:
    """`tasks.json`: the object of each task, by which `harken.load_run` finds it in the workspace."""
    rows = {
        name: {
            "object": made.key,
            "stage": tasks[name].stage,
            "kind": tasks[name].kind,
            "set": tasks[name].unit.set,
            "machine": tasks[name].unit.machine if tasks[name].unit.set else None,
            "seed": tasks[name].seed,
        }
        for name, made in objects.items()
    }
    write_atomically(folder / "tasks.json", (json_text(rows, indent=1, sort_keys=True) + "\n").encode())

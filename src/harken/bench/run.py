"""A recipe on data: tasks, then score files, official results and a report, all below one folder."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
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
    tuned_on_test,
)
from harken.bench.jobs import Executor
from harken.bench.recipe import Recipe
from harken.bench.result import Run, SystemScores
from harken.bench.stages import stage_class
from harken.bench.stages.tables import Quarantined, Scored, read_ids, read_scores
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError, TooFewError
from harken.core.files import write_atomically
from harken.data import catalog
from harken.data.clips import Clip
from harken.data.index import DataFinding, index
from harken.data.names import without_ending
from harken.data.table import read_table, write_table
from harken.data.truth import Label, Truth
from harken.evaluation.evaluate import Result, evaluate_system
from harken.evaluation.score_files import System, official_name, write_rows


def load_clips(data: Path, truth: Truth | None = None) -> tuple[list[Clip], list[DataFinding]]:
    """Clips of a table made by `harken data index`, or of a folder. Raises HarkenError when there are none."""
    return (read_table(data), []) if data.is_file() else index(data, truth=truth)


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
) -> Run:
    """Run what is not there yet, and write score files, results and report to `workspace/runs/<recipe>-<digest>/`.

    data: folder or clips table. machines: leave out the others. truth: labels of evaluation clips; they are used for
    the official numbers and nothing else. executor: where stages run; None is in `workers` processes of this machine.
    The files do not depend on either, nor on how often a run was killed.
    Raises HarkenError when no system could be scored.
    """
    clips, findings = load_clips(data, truth)
    units = make_units(clips, machines, recipe.score_years)
    common = make_common(clips, machines, recipe.score_years)
    tasks = make_tasks(recipe, units, common)
    objects, failures = run_tasks(tasks, workspace, workers=workers, executor=executor, watch=watch)
    scored = _scored(recipe, units, objects)
    left_out = [str(failure.error) for failure in failures if isinstance(failure.error, TooFewError)]
    failures = [failure for failure in failures if not isinstance(failure.error, TooFewError)]
    notes = list(dict.fromkeys([*_notes(objects), *left_out]))
    if not any(rows for machines in scored.values() for rows in machines.values()):
        if failures:
            raise failures[0].error
        raise HarkenError("no test clip could be scored", file=data, next_step=notes[0])
    folder = workspace.root / "runs" / f"{recipe.name}-{_run_digest(recipe, [*units, common['none']])}"
    folder.mkdir(parents=True, exist_ok=True)
    _write_tasks(folder, tasks, objects)
    systems, unscored = _collect(recipe, units, clips, scored, folder, truth)
    run = Run(
        folder,
        recipe,
        tuple(units),
        tuple(clips),
        tuple(systems),
        tuple(_quarantined(tasks, objects)),
        unscored,
        tuple(failures),
        tuple(findings),
        tuple(notes),
    )
    if recipe.ensembles:
        _write(run, report=False)
        run = _with_ensembles(run, truth, workspace)
    _write(run)
    return run


def _with_ensembles(run: Run, truth: Truth | None, workspace: Workspace) -> Run:
    """The run with its ensembles as further systems; those that could not be mixed are noted."""
    of_id = {clip.clip_id: clip for clip in run.clips}
    sets = list(dict.fromkeys(one.set for one in run.systems))
    labels = {}
    for label in sets:
        scored = next(one.rows for one in run.systems if one.set == label)
        clips = [of_id[row.clip_id] for row in scored]
        known = None if is_evaluation(label) or not clips else _known(clips, truth)
        if known is not None:
            labels[label] = Labels(known, _year(clips))
    systems, notes = list(run.systems), list(run.notes)
    for mixed in mix_systems(run.recipe, run.folder, sets, labels, workspace):
        if mixed.member is None or mixed.mix is None:
            notes.append(mixed.why)
            continue
        entry = run.recipe.ensembles[mixed.name]
        parts = [one for one in run.systems if one.set == mixed.set and one.system in entry.members]
        rows = []
        table = mixed.member.as_system()
        for row in parts[0].rows:
            key, name = (row.machine, row.section), without_ending(row.file)
            if name in table.scores.get(key, {}):
                decision = int(table.decisions.get(key, {}).get(name, 0))
                rows.append(replace(row, score=table.scores[key][name], decision=decision))
        result, why = _evaluated(table, [of_id[row.clip_id] for row in rows], truth)
        tuned = mixed.mix.tuned_on == mixed.set or any(one.tuned for one in parts)
        tuned |= bool(entry.tuned) and entry.search is None and not is_evaluation(mixed.set)
        scores = SystemScores(mixed.name, mixed.set, None, tuple(rows), mixed.folder, result, why, tuned, mixed.mix)
        systems.append(scores)
    return replace(run, systems=tuple(systems), notes=tuple(notes))


def _scored(
    recipe: Recipe, units: Sequence[Unit], objects: Mapping[str, Object]
) -> dict[tuple[str, str, int | None], dict[str, list[Scored]]]:
    """(system, set, seed) -> machine -> rows, where every machine of the set could be scored or not."""
    found: dict[tuple[str, str, int | None], dict[str, list[Scored]]] = defaultdict(dict)
    for system, stage in recipe.systems.items():
        for unit in units:
            for seed in (None, *recipe.seeds):
                made = objects.get(task_name(stage, unit, seed))
                if made is not None:
                    found[system, unit.set, seed][unit.machine] = read_scores(made.folder)
    return dict(found)


def _collect(
    recipe: Recipe,
    units: Sequence[Unit],
    clips: Sequence[Clip],
    scored: Mapping[tuple[str, str, int | None], Mapping[str, Sequence[Scored]]],
    folder: Path,
    truth: Truth | None,
) -> tuple[list[SystemScores], dict[str, tuple[str, ...]]]:
    """Write score and decision files and evaluate them."""
    labels = {clip.clip_id: clip for clip in clips}
    several = len({unit.set for unit in units}) > 1
    systems, unscored = [], {}
    for (system, label, seed), machines in scored.items():
        rows = tuple(row for machine in sorted(machines) for row in machines[machine])
        place = folder / "scores" / system
        place = place / f"seed_{seed}" if seed is not None else place
        place = place / label.replace(" ", "_") if several else place
        table = System(f"{system}" + (f" seed {seed}" if seed is not None else ""))
        for row in rows:
            key = (row.machine, row.section)
            name = without_ending(row.file)
            table.scores.setdefault(key, {})[name] = row.score
            table.decisions.setdefault(key, {})[name] = row.decision
        for key in table.scores:
            write_rows(place / official_name("anomaly_score", key), table.scores[key])
            decisions = {name: int(value) for name, value in table.decisions[key].items()}
            write_rows(place / official_name("decision_result", key), decisions)
        asked = [clip for unit in units if unit.set == label for clip in unit.clips if clip.recorded]
        expected = {clip.clip_id for clip in asked if clip.split == "test"}
        missing = tuple(sorted(expected - {row.clip_id for row in rows}))
        if missing:
            unscored[label] = missing
        result, why = _evaluated(table, [labels[row.clip_id] for row in rows], truth)
        tuned = tuned_on_test(recipe, recipe.systems[system]) and not is_evaluation(label)
        systems.append(SystemScores(system, label, seed, rows, place, result, why, tuned))
    return systems, unscored


def _evaluated(table: System, clips: Sequence[Clip], truth: Truth | None) -> tuple[Result | None, str]:
    """Official result, or why there is none: labels are not known, or a class is missing."""
    known = _known(clips, truth)
    if known is None:
        return None, "the labels of its test clips are not known"
    try:
        return evaluate_system(table, known, year=_year(clips)), ""
    except HarkenError as error:
        return None, error.cause


def _known(clips: Sequence[Clip], truth: Truth | None) -> Truth | None:
    """The labels of test clips; None where one of them has none."""
    known = Truth("the clips table")
    for clip in clips:
        if clip.condition == "unknown":
            return None
        label = Label(clip.condition == "anomaly", clip.domain)
        known.add((clip.machine, clip.section), without_ending(clip.path.name), label)
    known.official = truth is not None and truth.official and bool(known.labels.keys() & truth.labels.keys())
    return known


def _year(clips: Sequence[Clip]) -> int | None:
    """Whose rule they are evaluated by; None where no year is known."""
    return next((clip.year for clip in clips if clip.year in catalog.years()), None)


def _quarantined(tasks: Mapping[str, Task], objects: Mapping[str, Object]) -> list[Quarantined]:
    found: dict[Quarantined, None] = {}
    for name, made in objects.items():
        if stage_class(tasks[name].kind).listens:
            found |= dict.fromkeys(read_ids(made.folder)[1])
    return sorted(found, key=lambda row: row.clip_id)


def _notes(objects: Mapping[str, Object]) -> list[str]:
    """What stages had to leave out."""
    found: dict[str, None] = {}
    for made in objects.values():
        file = made.folder / "notes.json"
        if file.is_file():
            found |= dict.fromkeys(json.loads(file.read_text()))
    return sorted(found)


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
        "results.json": json.dumps(run.as_json(), indent=1, sort_keys=True) + "\n",
    }
    if report:
        files["report.html"] = report_page(run)
    for name, text in files.items():
        write_atomically(run.folder / name, text.encode())
    _write_scores(run)


def _write_scores(run: Run) -> None:
    """`scores.parquet`: every score of every system in one tidy table."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"set": one.set, "system": one.shown, "seed": one.seed, **asdict(row)}
        for one in run.systems
        for row in one.rows
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="zstd")
    write_atomically(run.folder / "scores.parquet", sink.getvalue())


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
    write_atomically(folder / "tasks.json", (json.dumps(rows, indent=1, sort_keys=True) + "\n").encode())

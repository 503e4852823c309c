"""Runs compared: what differs in their recipes, official scores, and intervals of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.bench.compared_runs import ComparedRun, common_sets, differing, shared_clips
from harken.bench.comparison import ComparedSet, ComparedSystem, Comparison, ScoreDifference
from harken.bench.run_names import find_run, find_tagged
from harken.core.errors import HarkenError, there_are
from harken.data.truth import Section
from harken.evaluation.bootstrap import DRAWS, LEVEL, draws_over_clips, interval_of, paired_draws
from harken.evaluation.evaluate import Result, evaluate_system
from harken.evaluation.rules import Numbers, summary
from harken.evaluation.scores import Scores, merged_marks

Float64 = NDArray[np.float64]


def compare(
    runs: Sequence[str | Path] = (),
    *,
    workspace: str | Path | None = None,
    tags: Sequence[str] = (),
    systems: Sequence[str] = (),
    data_set: str | None = None,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison:
    """Compare the systems of runs: every system with the system of the same name of the first run, or with its first.

    runs: folders, or in a workspace names; tags: and the runs of the workspace that have all of these. systems,
    data_set: only these. draws: paired bootstrap samples, the same for all systems; 0: no intervals.
    Runs are compared on the clips that all have scored; what is left out is among the notes.
    Raises HarkenError for an unknown run, runs without a set or clip in common, and runs of different data.
    """
    named = _find(runs, None if workspace is None else Path(workspace), tags)
    sets, notes = common_sets(named, data_set)
    compared = []
    for label in sets:
        result, more = _compare_set(label, named, systems, draws, level, seed)
        compared.append(result)
        notes += more
    return Comparison(
        tuple(run.name for run in named), tuple(run.folder for run in named), differing(named), tuple(compared),
        tuple(dict.fromkeys(notes)), draws, level, seed,
    )  # fmt: skip


def _find(runs: Sequence[str | Path], workspace: Path | None, tags: Sequence[str]) -> list[ComparedRun]:
    places = [find_run(run, workspace) for run in runs]
    if tags:
        if workspace is None:
            raise HarkenError("tags are of runs in a workspace", next_step="Give it: --workspace DIR")
        given = {folder.absolute() for folder, _ in places}
        places += [find_run(run) for run in find_tagged(tags, workspace) if run.absolute() not in given]
    if not places:
        raise HarkenError("there are no runs to compare", next_step="Give their folders, or --workspace and names")
    folders = [folder.absolute() for folder, _ in places]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise HarkenError("is given twice", file=folder, next_step="Give each run once")
    names = [name for _, name in places]
    return [ComparedRun(name if names.count(name) == 1 else f"{name} ({folder})", folder) for folder, name in places]


def _compare_set(
    label: str, runs: Sequence[ComparedRun], systems: Sequence[str], draws: int, level: float, seed: int
) -> tuple[ComparedSet, list[str]]:
    """The set, and notes on it."""
    entries = [
        (run, name, tables)
        for run in runs
        for (of, name), tables in run.systems.items()
        if of == label and (not systems or name in systems)
    ]
    for name in systems:
        if name not in [entry[1] for entry in entries]:
            present = dict.fromkeys(system for run in runs for of, system in run.systems if of == label)
            raise HarkenError(f"no run has the system {name!r}", next_step=there_are(present))
    shared = shared_clips(label, [(run, table) for run, _, tables in entries for table in tables])
    notes = list(shared.notes)
    tables_of = [[replace(shared.of(table), system=f"{run.name}/{name}") for table in tables]
                 for run, name, tables in entries]  # fmt: skip
    results: list[list[Result]] = []
    try:
        if shared.truth is None:
            raise HarkenError("the labels of its test clips are not known")
        results = [[evaluate_system(table, shared.truth, year=shared.year) for table in rows] for rows in tables_of]
    except HarkenError as error:
        notes.append(f"{label}: no official scores: {error.cause}")
    compared = []
    for number, (run, name, tables) in enumerate(entries):
        marks = merged_marks(table.marks for table in tables)
        if not results:
            compared.append(ComparedSystem(run.name, name, len(tables), None, 0.0, {}, marks))
            continue
        complete = all(len(table) == len(shared.keys) for table in tables)
        pairs = zip(tables, results[number], strict=True)
        scores = [_official(run, table, result, complete) for table, result in pairs]
        machines = _means([machine_scores(result) for result in results[number]])
        compared.append(ComparedSystem(
            run.name, name, len(tables), float(np.mean(scores)), float(np.std(scores)), machines, marks
        ))  # fmt: skip
    if draws and results and len(compared) > 1:
        compared = _with_differences(compared, results, draws, level, seed)
        count = len(compared[0].machines)
        if 1 < count < 5:
            notes.append(f"{label}: of {count} machines an interval over machines is coarse")
    machine_names = tuple(dict.fromkeys(machine for machine, *_ in sorted(shared.keys)))
    return ComparedSet(label, len(shared.keys), machine_names, tuple(compared)), notes


def _official(run: ComparedRun, table: Scores, result: Result, complete: bool) -> float:
    """As the run has printed it, where all its clips are compared: evaluators differ in the order of their sums."""
    stored = run.stored_score(table) if complete else None
    return result.official_score if stored is None else stored


def machine_scores(result: Result) -> dict[str, float]:
    """Official score of each machine alone, by the rule of the result."""
    rows: dict[str, list[tuple[Section, Numbers]]] = {}
    for key, numbers in result.numbers.items():
        rows.setdefault(key[0], []).append((key, numbers))
    return {machine: summary(result.rule, of)["official_score"] for machine, of in rows.items()}


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _with_differences(
    systems: Sequence[ComparedSystem], results: Sequence[Sequence[Result]], draws: int, level: float, seed: int
) -> list[ComparedSystem]:
    """Each system with its difference to that of the same name of the first run, or to the first of all."""
    first_run = systems[0].run
    several = len({system.run for system in systems}) > 1
    first_of = {system.system: number for number, system in enumerate(systems) if several and system.run == first_run}
    counts = [len(seeds) for seeds in results]
    every = [result for seeds in results for result in seeds]
    all_RB, alone = draws_over_clips(every, draws=draws, seed=seed)
    over_clips = _mean_of_seeds(all_RB, counts)
    of_machine = {machine: _mean_of_seeds(rows_RB, counts) for machine, rows_RB in alone.items()}
    over_machines = None
    if len(of_machine) > 1:
        over_machines = _mean_of_seeds(paired_draws(every, draws=draws, seed=seed, over_machines=True), counts)
    compared = []
    for number, system in enumerate(systems):
        base = first_of.get(system.system, 0)
        if base == number:
            compared.append(system)
            continue
        against = systems[base]
        assert system.score is not None
        assert against.score is not None
        clips_B = over_clips[number] - over_clips[base]
        machines_B = None if over_machines is None else over_machines[number] - over_machines[base]
        by_machine = {
            machine: (
                system.machines[machine] - against.machines[machine],
                interval_of(rows[number] - rows[base], level),
            )
            for machine, rows in of_machine.items()
        }
        compared.append(replace(system, difference=ScoreDifference(
            (against.run, against.system),
            system.score - against.score,
            interval_of(clips_B, level),
            None if machines_B is None else interval_of(machines_B, level),
            float(np.mean((clips_B if machines_B is None else machines_B) > 0)),
            by_machine,
            merged_marks([system.marks, against.marks]),
        )))  # fmt: skip
    return compared


def _mean_of_seeds(rows_RB: Float64, counts: Sequence[int]) -> Float64:
    """(systems, draws) from (results, draws); counts: results of each system."""
    ends = np.cumsum(counts)
    return np.array([rows_RB[end - count : end].mean(axis=0) for end, count in zip(ends, counts, strict=True)])

"""The tasks of a run and their cost, without running it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harken.bench import estimate
from harken.bench.costs import Cost, PlannedStage
from harken.bench.devices import DEFAULT, Device, machine_memory, this_machine
from harken.bench.devices import device as device_of
from harken.bench.expected import expected_clips, number_of
from harken.bench.graph import Task, Tests, Unit, make_common, make_tasks, make_units
from harken.bench.needed_weights import missing_weights
from harken.bench.recipe import Recipe, StageEntry
from harken.bench.run import load_clips
from harken.bench.stages import stage_class
from harken.bench.unlearned import check_conditions, unscreened_conditions
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError
from harken.core.workers import cores
from harken.data import catalog
from harken.data.clips import Clip
from harken.data.labels import ClassTable

_SPLITS = ("train", "test", "supplemental")


def make_plan(
    recipe: Recipe,
    data: Path | None,
    workspace: Path | None,
    *,
    machines: Collection[str] | None = None,
    device: str = DEFAULT,
) -> dict[str, Any]:
    """Stages with the number of their tasks and of those that are cached (None without a workspace), classes,
    steps, time and memory; units with their clips; totals; and what is missing. Complete also without data, by the
    clips that the catalogue knows (`expected`), and without weights; without torch, times and memory are None.

    Times are seconds, memory is bytes. Those of `devices` rest on assumptions (see `Device`), by precision (`recipe`:
    that of the recipe; others where the stage can be set to them), and are None for stages that use no GPU. `unknown`:
    stages whose kind does not say what it costs, or that could not be counted; they are in no total.

    Raises HarkenError for an unknown device.
    """
    chosen = device_of(device)
    missing: list[str] = []
    clips, expected = _clips(recipe, data, missing)
    units: list[Unit] = []
    common: dict[Tests, Unit] | None = None
    try:
        units = make_units(clips, machines, recipe.score_years)
        common = make_common(clips, machines, recipe.score_years)
    except HarkenError as error:
        missing.append(str(error))
    if not expected:
        missing += _missing_years(recipe, clips)
    missing += _missing_requirements(recipe)
    tasks = make_tasks(recipe, units, common)
    cached = _cached(tasks, workspace)
    reason = estimate.why_not()
    if reason is not None:
        missing.append(reason)
    made = _Expected(recipe)
    tables = _tables(recipe, common, made, missing)
    if common is not None:
        missing += _unlearned(recipe, common["none"].clips)
    by_stage: dict[str, list[Task]] = {name: [] for name in recipe.stages}
    for task in tasks.values():
        by_stage[task.stage].append(task)
    planned = _planned(recipe, by_stage, tables, made, expected, chosen)
    stages = []
    for name, entry in recipe.stages.items():
        cost = _cost(name, entry, planned[name], missing)
        stages.append(_row(name, entry, by_stage[name], cached, workspace, cost, chosen))
    return {
        "recipe": recipe.name,
        "expected": expected,
        "device": chosen.name,
        "seeds": list(recipe.seeds),
        "stages": stages,
        "units": [_clip_counts(unit) for unit in units],
        "total": _total(stages, chosen),
        "assumptions": [] if reason is not None else _assumptions(stages, expected, chosen),
        "missing": missing,
    }


# ------------------------------------------------------------ data and weights


def _wanted(recipe: Recipe) -> list[int]:
    """Years of training and scored clips; all years of the catalogue where the recipe does not restrict both."""
    named = list(_learned_years(recipe))
    learned = [year for years in named if years is not None for year in years]
    scored = recipe.score_years
    if None in named or (not named and scored is None):
        return list(catalog.years())
    return sorted({*learned, *(scored or ())})


def _learned_years(recipe: Recipe) -> Iterator[tuple[int, ...] | None]:
    """Of each stage that makes labels, pre-trains or trains what generates and screens, the years that it is set to;
    None: all."""
    for name, entry in recipe.stages.items():
        cls = stage_class(entry.use)
        if cls.makes in ("labels", "encoder", "generator", "classifier"):
            yield getattr(recipe.parameters_of(name), "years", None)


def _clips(recipe: Recipe, data: Path | None, missing: list[str]) -> tuple[list[Clip], bool]:
    """The clips of the data, else the expected ones, and whether they are expected."""
    if data is None:
        missing.append("data: name it with --data; harken data download gets it")
        wanted = _wanted(recipe)
        missing += [f"data of {year}: harken data download {year}" for year in wanted]
        return expected_clips(wanted), True
    try:
        return load_clips(data)[0], False
    except HarkenError as error:
        missing.append(str(error))
        wanted = _wanted(recipe)
        missing += [f"data of {year}: harken data download {year} --root {data}" for year in wanted]
        return expected_clips(wanted), True


def _missing_years(recipe: Recipe, clips: Sequence[Clip]) -> list[str]:
    """Of the years that stages of labels name: which halves have no training clips."""
    if not any(_learned_years(recipe)):
        return []
    trained = [clip for clip in clips if clip.split == "train"]
    halves = {(clip.year, catalog.half_of(clip.year, clip.machine, clip.section)) for clip in trained}
    years = {clip.year for clip in trained}
    missing = []
    for year in _wanted(recipe):
        if year not in years:
            missing.append(f"data of {year}: harken data download {year}")
            continue
        for half, split in (("dev", "dev"), ("eval", "train")):
            if (year, half) not in halves:
                missing.append(
                    f"training clips of the {'evaluation' if half == 'eval' else 'development'} machines of {year}: "
                    f"harken data download {year} --split {split}"
                )
    return missing


def _missing_requirements(recipe: Recipe) -> list[str]:
    """What stages need besides data: weights, each once, and packages."""
    lacking = missing_weights(recipe)
    stages_by_error: dict[str, list[str]] = defaultdict(list)
    for name, entry in recipe.stages.items():
        cls = stage_class(entry.use)
        parameters = cls.Parameters.model_validate(entry.parameters)
        try:
            cls.identity(parameters)
        except HarkenError as error:
            absent = any(name in names for names in lacking.values())
            if not absent or "on this machine" not in error.cause:
                stages_by_error[str(error)].append(name)
    lines = [
        f"{_stages(names)}: the weights {checkpoint} are not on this machine. Run: harken weights fetch {checkpoint} "
        "(or, offline: harken weights add FILE)"
        for checkpoint, names in lacking.items()
    ]
    return lines + [f"{_stages(names)}: {text}" for text, names in stages_by_error.items()]


def _stages(names: Sequence[str]) -> str:
    return f"stage{'s' * (len(names) > 1)} {', '.join(names)}"


def _cached(tasks: Mapping[str, Task], workspace: Path | None) -> dict[str, Object]:
    cached: dict[str, Object] = {}
    if workspace is None or not (workspace / "objects").is_dir():
        return cached
    store = Workspace(workspace)
    for task in tasks.values():
        try:
            if all(need in cached for need in task.needs):
                stored = store.get(task.key({need: cached[need].digest for need in task.needs}))
                if stored is not None:
                    cached[task.name] = stored
        except HarkenError:
            continue  # its weights are reported as missing
    return cached


# ------------------------------------------------------------ trainings


def _unlearned(recipe: Recipe, clips: Sequence[Clip]) -> list[str]:
    """What is generated or screened by something that does not learn it."""
    try:
        check_conditions(recipe, clips)
    except HarkenError as error:
        return [f"{error.cause}. {error.next_step}"]
    return unscreened_conditions(recipe, clips)


def _tables(
    recipe: Recipe, common: Mapping[Tests, Unit] | None, made: _Expected, missing: list[str]
) -> dict[str, ClassTable]:
    """Classes of each stage that makes labels, where it can give them without running."""
    tables: dict[str, ClassTable] = {}
    if common is None:
        return tables
    for name, entry in recipe.stages.items():
        cls = stage_class(entry.use)
        try:
            clips = made.after(name, common["none"].clips)
            table = cls.classes(recipe.parameters_of(name), clips)
        except HarkenError as error:
            missing.append(f"stage {name}: {error}")
            continue
        if table is not None:
            tables[name] = table
    return tables


class _Expected:
    """Clips that stages will make, worked out once for all tasks and stages that read them."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        #: by the stage that makes them and the clips that it makes them of, which are kept: their ids stay theirs
        self._made: dict[tuple[str, int], tuple[tuple[Clip, ...], tuple[Clip, ...]]] = {}

    def after(self, name: str, clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
        """The clips of a task of a stage, then those that the stages which it reads will make of them."""
        sources = (source for sources in self._recipe.inputs_of(name).values() for source in sources)
        made = [clip for source in sources for clip in self._of(source, clips)]
        return (*clips, *made) if made else clips

    def _of(self, source: str, clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
        cls = stage_class(self._recipe.stages[source].use)
        if cls.makes != "clips":
            return ()
        key = source, id(clips)
        if key not in self._made:
            read = self._recipe.inputs_of(source).items()
            inputs = {name: tuple(map(self._recipe.parameters_of, sources)) for name, sources in read}
            made = cls.expected_clips(self._recipe.parameters_of(source), self.after(source, clips), inputs)
            self._made[key] = clips, tuple(made)
        return self._made[key][1]


# ------------------------------------------------------------ costs


def _planned(
    recipe: Recipe,
    tasks: Mapping[str, Sequence[Task]],
    tables: Mapping[str, ClassTable],
    made: _Expected,
    expected: bool,
    device: Device,
) -> dict[str, PlannedStage]:
    """The arguments of each stage's `cost`."""
    planned: dict[str, PlannedStage] = {}

    def plan(name: str) -> PlannedStage:
        if name not in planned:
            planned[name] = PlannedStage(
                parameters=recipe.parameters_of(name),
                clips=tuple(made.after(name, task.unit.clips) for task in tasks[name]),
                inputs={key: tuple(map(plan, sources)) for key, sources in recipe.inputs_of(name).items()},
                classes=tables.get(name),
                expected=expected,
                device=device,
            )
        return planned[name]

    for name in recipe.stages:
        plan(name)
    return planned


def _cost(name: str, entry: StageEntry, planned: PlannedStage, missing: list[str]) -> Cost | None:
    """The cost of a stage; None if it is unknown."""
    try:
        return stage_class(entry.use).cost(planned.parameters, planned)
    except HarkenError as error:
        text = f"stage {name}: {error}"
        if text not in missing:
            missing.append(text)
        return None


# ------------------------------------------------------------ the plan


def _row(
    name: str,
    entry: StageEntry,
    tasks: Sequence[Task],
    cached: Mapping[str, Object],
    workspace: Path | None,
    cost: Cost | None,
    device: Device,
) -> dict[str, Any]:
    # Stages for all machines use all processes, others run in parallel.
    beside = 1 if stage_class(entry.use).scope == "all" else cores()
    planned_cost = cost if cost is not None else Cost()
    left = [row for row, task in enumerate(tasks) if task.name not in cached]
    on_device = None
    if planned_cost.device_seconds:
        on_device = {
            "seconds": _sums(planned_cost.device_seconds),
            "remaining_seconds": _sums(planned_cost.device_seconds, left),
            "memory": planned_cost.device_memory,
        }
    return {
        "stage": name,
        "kind": entry.use,
        "reads": list(entry.inputs),
        "parameters": entry.parameters,
        "tasks": len(tasks),
        "cached": None if workspace is None else sum(task.name in cached for task in tasks),
        **planned_cost.details,
        "unknown": cost is None,
        "seconds": sum(planned_cost.seconds) / beside if planned_cost.seconds else None,
        "remaining_seconds": sum(planned_cost.seconds[row] for row in left) / beside if planned_cost.seconds else None,
        "memory": None if planned_cost.memory is None else planned_cost.memory * beside,
        "devices": {device.name: on_device},
    }


def _sums(times: Sequence[Mapping[str, float]], rows: Sequence[int] | None = None) -> dict[str, float]:
    """By precision, of these rows or all; every row has the same ones."""
    chosen = range(len(times)) if rows is None else rows
    return {precision: sum(times[row][precision] for row in chosen) for precision in times[0]}


def _clip_counts(unit: Unit) -> dict[str, Any]:
    splits = {split: number_of(clip for clip in unit.clips if clip.split == split) for split in _SPLITS}
    return {"set": unit.set, "machine": unit.machine, **splits}


def _total(stages: Sequence[Mapping[str, Any]], device: Device) -> dict[str, Any]:
    """Sums of times, highest memory; None where nothing could be estimated. unknown: stages that are not among them."""
    counted = [row for row in stages if row["seconds"] is not None]
    memory = max((row["memory"] for row in stages if row["memory"] is not None), default=None)
    available = machine_memory()
    on_device = [row["devices"][device.name] for row in stages if row["devices"][device.name] is not None]
    held = max((row["memory"] for row in on_device if row["memory"] is not None), default=None)
    return {
        "seconds": sum(row["seconds"] for row in counted) if counted else None,
        "remaining_seconds": sum(row["remaining_seconds"] for row in counted) if counted else None,
        "memory": memory,
        "machine_memory": available,
        "fits": None if memory is None or available is None else memory <= available,
        "unknown": [row["stage"] for row in stages if row["unknown"]],
        "devices": {
            device.name: {
                "seconds": _by_precision([row["seconds"] for row in on_device]),
                "remaining_seconds": _by_precision([row["remaining_seconds"] for row in on_device]),
                "memory": held,
                "device_memory": device.memory,
                "fits": None if held is None or device.memory is None else held <= device.memory,
            }
            if on_device
            else None
        },
    }


def _by_precision(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sums by the precisions that any of them can be set to; those that cannot stay in what they compute in."""
    precisions = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row.get(name, row["recipe"]) for row in rows) for name in precisions}


def _assumptions(stages: Sequence[Mapping[str, Any]], expected: bool, device: Device) -> list[str]:
    machine = this_machine(max((row.get("threads") or 1 for row in stages), default=1))
    peaks = {name: f"{value / 1e12:.0f}" for name, value in device.flops.items()}
    lines = [
        f"this machine: {machine.flops['fp32'] / 1e9:.0f} GFLOP/s in fp32 on {machine.threads} thread"
        f"{'s' * (machine.threads > 1)}, as in training, measured now; products at {machine.utilisation:.0%} of it",
        f"{device.title}: assumed, none was measured: {device.utilisation:.0%} of the published {peaks['fp32']} "
        f"(fp32), {peaks['tf32']} (tf32), {peaks['bf16']} (bf16) TFLOP/s and {device.bandwidth / 1e12:g} TB/s; "
        f"embedding in batches of {estimate.EMBEDDED_TOGETHER}; "
        "reading clips fast enough is left out",
        "detectors, combinations and labels take seconds per machine and are left out",
    ]
    if expected:
        lines.append("expected clips: numbers and lengths as published, not of data; classes at least, where marked >=")
    return lines

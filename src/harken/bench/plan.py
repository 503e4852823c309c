"""What a run would do and what it would cost, without doing it."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harken.bench import estimate, work
from harken.bench.expected import classes_are_whole, expected_clips, expected_seconds, number_of
from harken.bench.graph import Task, Tests, Unit, make_common, make_tasks, make_units
from harken.bench.recipe import Recipe, StageEntry
from harken.bench.run import load_clips
from harken.bench.stages import stage_class
from harken.bench.stages.train import TrainStage
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError
from harken.data import catalog
from harken.data.clips import Clip
from harken.data.labels import UNUSED, ClassTable, label_clips
from harken.training.settings import TrainingSpec, held_out_clips

_PRECISIONS = ("fp32", "tf32", "bf16")
_SPLITS = ("train", "test", "supplemental")


@dataclass
class _Cost:
    """Of one stage. seconds: of each of its tasks on this machine, on one thread but for trainings; h200: the same by
    precision. memory, h200_memory: bytes at the peak. about: what is told of it."""

    seconds: dict[str, float] = field(default_factory=dict)
    h200: dict[str, dict[str, float]] = field(default_factory=dict)
    memory: float | None = None
    h200_memory: float | None = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Passed:
    """What a training goes through: clips with a class (or a second label), those trained on and held out, steps."""

    usable: int
    trained: int
    held_out: int
    steps: int
    evaluations: int


def make_plan(
    recipe: Recipe, data: Path | None, workspace: Path | None, *, machines: Collection[str] | None = None
) -> dict[str, Any]:
    """Stages with the number of their tasks and of those whose files are there (None without a workspace), classes,
    steps, time and memory; units with their clips; totals; and what is missing. Complete also without data, by the
    clips that the catalogue knows (`expected`), and without weights; without torch, times and memory are None.

    Times are seconds, memory is bytes; those of `h200` rest on assumptions (`work.H200_UTILISATION`), by precision
    (`recipe`: that of the recipe), and are None for stages that use no GPU.
    """
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
    missing += _missing_parts(recipe)
    tasks = make_tasks(recipe, units, common)
    there = _there(tasks, workspace)
    reason = estimate.why_not()
    if reason is not None:
        missing.append(reason)
    tables = _tables(recipe, common, missing)
    costs = {
        name: _cost(recipe, name, [task for task in tasks.values() if task.stage == name], tables, expected, missing)
        for name in recipe.stages
    }
    stages = [
        _row(name, entry, [task for task in tasks.values() if task.stage == name], there, workspace, costs[name])
        for name, entry in recipe.stages.items()
    ]
    return {
        "recipe": recipe.name,
        "expected": expected,
        "seeds": list(recipe.seeds),
        "stages": stages,
        "units": [_told(unit) for unit in units],
        "total": _total(stages),
        "assumptions": [] if reason is not None else _assumptions(stages, expected),
        "missing": missing,
    }


# ------------------------------------------------------------ data and weights


def _wanted(recipe: Recipe) -> list[int]:
    """Years that are learned from or scored; all of the catalogue where the recipe leaves either open."""
    named = [
        stage_class(entry.use).Parameters.model_validate(entry.parameters).years  # type: ignore[attr-defined]
        for entry in recipe.stages.values()
        if entry.use == "labels"
    ]
    scored = recipe.score_years
    if any(years is None for years in named) or (not named and scored is None):
        return list(catalog.years())
    return sorted({*(year for years in named for year in years), *(scored or ())})


def _clips(recipe: Recipe, data: Path | None, missing: list[str]) -> tuple[list[Clip], bool]:
    """The clips there are, or the expected ones; and which of the two."""
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
    if not any(entry.use == "labels" and entry.parameters.get("years") for entry in recipe.stages.values()):
        return []
    trained = [clip for clip in clips if clip.split == "train"]
    halves = {(clip.year, catalog.half_of(clip.year, clip.machine, clip.section)) for clip in trained}
    years = {clip.year for clip in trained}
    told = []
    for year in _wanted(recipe):
        if year not in years:
            told.append(f"data of {year}: harken data download {year}")
            continue
        for half, split in (("dev", "dev"), ("eval", "train")):
            if (year, half) not in halves:
                told.append(
                    f"training clips of the {'evaluation' if half == 'eval' else 'development'} machines of {year}: "
                    f"harken data download {year} --split {split}"
                )
    return told


def _missing_parts(recipe: Recipe) -> list[str]:
    """What stages need besides data: weights, each once, and packages."""
    from harken.weights.cache import cached, status
    from harken.weights.catalog import catalog

    ready = {record.name for record in cached()} | {entry.name for entry in catalog() if status(entry) != "missing"}
    known = {entry.name for entry in catalog()}
    lacking: dict[str, list[str]] = defaultdict(list)
    told: dict[str, list[str]] = defaultdict(list)
    for name, entry in recipe.stages.items():
        cls = stage_class(entry.use)
        parameters = cls.Parameters.model_validate(entry.parameters)
        named = []
        if isinstance(parameters, TrainStage.Parameters):
            named = [branch.weights for branch in parameters.model.branches if branch.weights is not None]
        absent = [one for one in dict.fromkeys(named) if one in known - ready]
        for one in absent:
            lacking[one].append(name)
        try:
            cls.identity(parameters)
        except HarkenError as error:
            if not absent or "on this machine" not in error.cause:
                told[str(error)].append(name)
    found = [
        f"{_stages(names)}: the weights {one} are not on this machine. Run: harken weights fetch {one} "
        "(or, offline: harken weights add FILE)"
        for one, names in lacking.items()
    ]
    return found + [f"{_stages(names)}: {text}" for text, names in told.items()]


def _stages(names: Sequence[str]) -> str:
    return f"stage{'s' * (len(names) > 1)} {', '.join(names)}"


def _there(tasks: Mapping[str, Task], workspace: Path | None) -> dict[str, Object]:
    there: dict[str, Object] = {}
    if workspace is None or not (workspace / "objects").is_dir():
        return there
    here = Workspace(workspace)
    for task in tasks.values():
        try:
            if all(need in there for need in task.needs):
                found = here.get(task.key({need: there[need].digest for need in task.needs}))
                if found is not None:
                    there[task.name] = found
        except HarkenError:
            continue  # its weights are told as missing
    return there


# ------------------------------------------------------------ trainings


def _tables(recipe: Recipe, common: Mapping[Tests, Unit] | None, missing: list[str]) -> dict[str, ClassTable]:
    """What each stage of labels would make."""
    found: dict[str, ClassTable] = {}
    if common is None:
        return found
    for name, entry in recipe.stages.items():
        if entry.use != "labels":
            continue
        settings: Any = stage_class("labels").Parameters.model_validate(entry.parameters)
        years = settings.years
        clips = [clip for clip in common["none"].clips if years is None or clip.year in years]
        try:
            table = label_clips(clips, settings.policy, pool_years=settings.pool_years, parameters=settings.parameters)
        except HarkenError as error:
            missing.append(f"stage {name}: {error}")
            continue
        if len(table) < 2:
            wanted = f" of {', '.join(map(str, years))}" if years else ""
            missing.append(
                f"stage {name}: {number_of(clips)} clips{wanted} have {len(table)} classes: nothing to tell apart"
            )
        found[name] = table
    return found


def passed(training: TrainingSpec, clips: Sequence[Clip], table: ClassTable) -> Passed:
    """What `training.loop.train` makes of these settings on one device."""
    second = any(loss.target == "mixture" for loss in training.losses) and table.mixture_of is not None
    counts: Counter[int] = Counter()
    for clip in clips:
        label = table.class_of.get(clip.clip_id)
        if label is None or clip.split == "test":
            continue
        if label != UNUSED or (second and (table.mixture_of or {})[clip.clip_id] != UNUSED):
            counts[label] += number_of([clip])
    held = sum(held_out_clips(count, training.held_out) for label, count in counts.items() if label != UNUSED)
    usable = sum(counts.values())
    trained = usable - held
    size = max(1, min(training.batch, trained))
    steps = training.steps_of(trained // size)
    return Passed(usable, trained, held, steps, math.ceil(steps / training.evaluate_every))


# ------------------------------------------------------------ costs


def _cost(
    recipe: Recipe,
    name: str,
    tasks: Sequence[Task],
    tables: Mapping[str, ClassTable],
    expected: bool,
    missing: list[str],
) -> _Cost:
    entry = recipe.stages[name]
    cost = _Cost()
    try:
        if entry.use == "labels" and name in tables:
            table = tables[name]
            years = {clip.year for task in tasks for clip in task.unit.clips if clip.year is not None}
            used = number_of(clip for clip in tasks[0].unit.clips if table.class_of.get(clip.clip_id, UNUSED) != UNUSED)
            cost.about = {"classes": len(table), "attribute_free": len(table.attribute_free_classes), "clips": used}
            named = entry.parameters.get("years")
            if expected and not classes_are_whole(named or years):
                cost.about["at_least"] = True
        elif entry.use == "train":
            _train_cost(entry, tasks, tables.get(recipe.inputs_of(name)["labels"][0]), cost)
        elif entry.use == "embed_trained":
            _embed_trained_cost(recipe.inputs_of(name)["model"][0], tables, recipe, tasks, expected, cost)
        elif entry.use == "embed":
            _embed_cost(entry, tasks, expected, cost)
        elif entry.use == "frames":
            _frames_cost(entry, tasks, expected, cost)
        elif entry.use == "autoencoder":
            _autoencoder_cost(recipe, name, tasks, expected, cost)
    except HarkenError as error:
        text = f"stage {name}: {error}"
        if text not in missing:
            missing.append(text)
    return cost


def _train_cost(entry: StageEntry, tasks: Sequence[Task], table: ClassTable | None, cost: _Cost) -> None:
    settings: Any = TrainStage.Parameters.model_validate(entry.parameters)
    training: TrainingSpec = settings.training
    if table is None or not tasks:
        return
    clips = tasks[0].unit.clips
    done = passed(training, clips, table)
    cost.about = {
        "classes": len(table), "clips": done.trained, "held_out": done.held_out, "steps": done.steps,
        "batch": training.batch, "accumulation": training.accumulation,
    }  # fmt: skip
    if estimate.why_not() is not None:
        return
    counts = estimate.count_training(settings.model, training, len(table), table.attribute_free_classes)
    step = estimate.step_work(counts, training)
    looked_at = done.held_out
    if training.choose == "dev":
        looked_at += number_of(clip for clip in clips if clip.split in ("train", "test") and clip.kind == "machine")
    whole = step * done.steps + counts.forward * (looked_at * done.evaluations)
    speed = estimate.measured_speed(settings.threads)
    cost.memory, cost.h200_memory = estimate.training_memory(counts, training)
    cost.about |= {
        "network_parameters": counts.parameters, "learned_parameters": counts.trainable, "threads": settings.threads,
        "step_flops": step.flops, "step_seconds": step.seconds(speed), "precision": training.precision,
    }  # fmt: skip
    for task in tasks:
        cost.seconds[task.name] = whole.seconds(speed)
        cost.h200[task.name] = _h200(whole, training.precision)


def _h200(whole: work.Work, precision: str) -> dict[str, float]:
    told = {one: whole.h200_seconds(one) for one in _PRECISIONS}
    return {"recipe": whole.h200_seconds(precision), **told}


def _embed_trained_cost(
    source: str,
    tables: Mapping[str, ClassTable],
    recipe: Recipe,
    tasks: Sequence[Task],
    expected: bool,
    cost: _Cost,
) -> None:
    settings: Any = TrainStage.Parameters.model_validate(recipe.stages[source].parameters)
    cost.about = {"clips": sum(number_of(task.unit.clips) for task in tasks)}
    table = tables.get(recipe.inputs_of(source)["labels"][0])
    if estimate.why_not() is not None or table is None:
        return
    training = settings.training
    counts = estimate.count_training(settings.model, training, len(table), table.attribute_free_classes)
    _embedding(tasks, counts, training.precision, expected, cost, lambda s: float(math.ceil(s / training.seconds)))


def _embed_cost(entry: StageEntry, tasks: Sequence[Task], expected: bool, cost: _Cost) -> None:
    from harken.encoders import encoder_class, tiny_config
    from harken.weights.catalog import catalog as checkpoints

    settings: Any = stage_class("embed").Parameters.model_validate(entry.parameters)
    cost.about = {"clips": sum(number_of(task.unit.clips) for task in tasks)}
    if settings.encoder not in ("spectral", "log_mel") and estimate.why_not() is not None:
        return
    if not encoder_class(settings.encoder).needs_weights:
        each = estimate.front_end_seconds(settings.encoder, json.dumps(settings.config))
        _front_end(tasks, each, expected, cost)
        return
    config = tiny_config(settings.encoder) if settings.size == "tiny" else {}
    if settings.size == "full":
        known = [one.name for one in checkpoints() if one.encoder == settings.encoder]
        name = settings.weights or (known[0] if known else "")
        config = estimate.published_config(settings.encoder, name)
    config.pop("seed", None)
    # Of several microphones, each passes.
    counts = estimate.count_encoder(settings.encoder, {**config, **settings.config})
    _embedding(tasks, counts, "fp32", expected, cost, lambda seconds: seconds / 10.0, settings.microphones == "all")


def _embedding(
    tasks: Sequence[Task],
    counts: work.Counts,
    precision: str,
    expected: bool,
    cost: _Cost,
    passes: Any,
    channels: bool = False,
) -> None:
    """Clips through a network, one by one on one thread. passes: seconds of a clip -> how often its work is done."""
    speed = estimate.measured_speed(1)
    each = counts.forward.seconds(speed)
    cost.memory, cost.h200_memory = estimate.embedding_memory(counts)
    cost.about |= {"network_parameters": counts.parameters, "clip_flops": counts.forward.flops}
    for task in tasks:
        times = passes(_seconds(task.unit, expected)) * (_channels(task.unit) if channels else 1)
        count = number_of(task.unit.clips)
        cost.seconds[task.name] = count * times * each
        one = _h200(counts.forward, precision)
        cost.h200[task.name] = {name: count * max(times * value, work.H200_CLIP_SECONDS) for name, value in one.items()}


def _frames_cost(entry: StageEntry, tasks: Sequence[Task], expected: bool, cost: _Cost) -> None:
    settings: Any = stage_class("frames").Parameters.model_validate(entry.parameters)
    cost.about = {"clips": sum(number_of(task.unit.clips) for task in tasks)}
    _front_end(tasks, estimate.front_end_seconds(settings.encoder, json.dumps(settings.config)), expected, cost)


def _front_end(tasks: Sequence[Task], each: float, expected: bool, cost: _Cost) -> None:
    for task in tasks:
        seconds = number_of(task.unit.clips) * each * _seconds(task.unit, expected) / 10
        cost.seconds[task.name] = seconds


def _autoencoder_cost(recipe: Recipe, name: str, tasks: Sequence[Task], expected: bool, cost: _Cost) -> None:
    settings: Any = stage_class("autoencoder").Parameters.model_validate(recipe.stages[name].parameters)
    frames = recipe.stages[recipe.inputs_of(name)["frames"][0]].parameters.get("config", {})
    hop, bands = int(frames.get("hop", 512)), int(frames.get("mels", 128))
    each = None if estimate.why_not() is not None else estimate.autoencoder_step_seconds(5 * bands, settings.batch)
    total = 0
    for task in tasks:
        clips = number_of(clip for clip in task.unit.clips if clip.split == "train" and clip.kind == "machine")
        vectors = clips * max(1, int(_seconds(task.unit, expected) * 16_000 / hop) - 3)
        steps = settings.epochs * math.ceil(0.9 * vectors / settings.batch)
        total += steps
        if each is not None:
            # The held-out tenth passes without gradients.
            cost.seconds[task.name] = 1.05 * steps * each
            held = 4.0 * vectors * bands
            cost.memory = max(cost.memory or 0.0, estimate.RUNTIME_BYTES + 2 * held)
    cost.about = {"steps": total, "batch": settings.batch, "accumulation": 1, "classes": None}


_LENGTHS: dict[str, tuple[float, int]] = {}


def _form(unit: Unit) -> tuple[float, int] | None:
    """Seconds and channels of the unit's first recording that can be opened: a machine's are alike."""
    for clip in unit.clips[:3]:
        key = str(clip.path)
        if key not in _LENGTHS:
            import soundfile

            try:
                info = soundfile.info(key)
            except (OSError, soundfile.LibsndfileError):
                continue
            _LENGTHS[key] = (info.frames / info.samplerate, info.channels)
        return _LENGTHS[key]
    return None


def _seconds(unit: Unit, expected: bool) -> float:
    first = unit.clips[0]
    found = None if expected else _form(unit)
    return found[0] if found is not None else expected_seconds(first.year, first.machine)


def _channels(unit: Unit) -> int:
    first = unit.clips[0]
    found = _form(unit)
    if found is not None:
        return found[1]
    return len(catalog.year(first.year).channels) if first.year in catalog.years() and first.year else 1


# ------------------------------------------------------------ what is told


def _row(
    name: str,
    entry: StageEntry,
    tasks: Sequence[Task],
    there: Mapping[str, Object],
    workspace: Path | None,
    cost: _Cost,
) -> dict[str, Any]:
    # Trainings have all processes to themselves, other stages run beside each other.
    beside = 1 if entry.use == "train" else len(os.sched_getaffinity(0))
    left = [task.name for task in tasks if task.name not in there]

    def on_h200(names: Sequence[str]) -> dict[str, float] | None:
        if not cost.h200:
            return None
        return {one: sum(cost.h200[task][one] for task in names) for one in ("recipe", *_PRECISIONS)}

    return {
        "stage": name,
        "kind": entry.use,
        "reads": list(entry.inputs),
        "parameters": entry.parameters,
        "tasks": len(tasks),
        "cached": None if workspace is None else sum(task.name in there for task in tasks),
        **cost.about,
        "seconds": sum(cost.seconds.values()) / beside if cost.seconds else None,
        "remaining_seconds": sum(cost.seconds[one] for one in left) / beside if cost.seconds else None,
        "memory": None if cost.memory is None else cost.memory * beside,
        "h200_seconds": on_h200([task.name for task in tasks]),
        "h200_remaining_seconds": on_h200(left),
        "h200_memory": cost.h200_memory,
    }


def _told(unit: Unit) -> dict[str, Any]:
    splits = {split: number_of(clip for clip in unit.clips if clip.split == split) for split in _SPLITS}
    return {"set": unit.set, "machine": unit.machine, **splits}


def _total(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of times, highest memory; None where nothing could be estimated."""
    counted = [row for row in stages if row["seconds"] is not None]
    here = estimate.machine_memory()

    def on_h200(key: str) -> dict[str, float] | None:
        rows = [row[key] for row in counted if row[key] is not None]
        return {one: sum(row[one] for row in rows) for one in ("recipe", *_PRECISIONS)} if rows else None

    memory = max((row["memory"] for row in stages if row["memory"] is not None), default=None)
    gpu = max((row["h200_memory"] for row in stages if row["h200_memory"] is not None), default=None)
    return {
        "seconds": sum(row["seconds"] for row in counted) if counted else None,
        "remaining_seconds": sum(row["remaining_seconds"] for row in counted) if counted else None,
        "h200_seconds": on_h200("h200_seconds"),
        "h200_remaining_seconds": on_h200("h200_remaining_seconds"),
        "memory": memory,
        "machine_memory": here,
        "fits": None if memory is None or here is None else memory <= here,
        "h200_memory": gpu,
        "h200_fits": None if gpu is None else gpu <= work.H200_MEMORY,
    }


def _assumptions(stages: Sequence[Mapping[str, Any]], expected: bool) -> list[str]:
    threads = max((row.get("threads") or 1 for row in stages), default=1)
    speed = estimate.measured_speed(threads)
    used = {name: f"{value / 1e12:.0f}" for name, value in work.H200_FLOPS.items()}
    told = [
        f"this machine: {speed.flops / 1e9:.0f} GFLOP/s in fp32 on {speed.threads} thread"
        f"{'s' * (speed.threads > 1)}, as a recipe trains, measured just now; products at "
        f"{work.CPU_UTILISATION:.0%} of it",
        f"H200: assumed, none was measured: {work.H200_UTILISATION:.0%} of the published {used['fp32']} (fp32, "
        f"which torch takes unless told otherwise), {used['tf32']} (tf32), {used['bf16']} (bf16) TFLOP/s and 4.8 TB/s; "
        f"embedding {work.H200_CLIP_SECONDS * 1000:.0f} ms a clip at least; reading clips fast enough is left out",
        "detectors, combinations and labels take seconds a machine and are left out",
    ]
    if expected:
        told.append("expected clips: numbers and lengths as published, not of data; classes at least, where marked >=")
    return told

"""From a recipe and a clips table to tasks: each stage once per machine (and seed), with its dependencies."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from harken.bench.recipe import Recipe
from harken.bench.stages import stage_class
from harken.bench.workspace import object_key
from harken.core.errors import HarkenError, there_are
from harken.core.json_text import json_text
from harken.core.plugins import code_sha256, is_custom
from harken.data import catalog
from harken.data.clips import Clip

#: test clips that a stage of scope `all` gets
Tests = Literal["none", "unlabelled", "labelled"]


@dataclass(frozen=True)
class Unit:
    """The clips that a task works on: of one machine of one set, such as fan of the 2025 development set, or of all
    machines of all sets (`set` is then "").

    clips: in table order, test clips without labels, except for stages that declare the use of labels.
    """

    set: str
    machine: str
    clips: tuple[Clip, ...]

    @property
    def name(self) -> str:
        """`dcase2025 dev/fan`"""
        return f"{self.set}/{self.machine}" if self.set else self.machine

    def labels_digest(self) -> str:
        """SHA-256 of the clips and the labels that stages may use."""
        rows = [
            [c.clip_id, c.split, c.machine, c.section, c.domain, c.condition, c.kind, sorted(c.attributes.items())]
            for c in self.clips
        ]
        return hashlib.sha256(json_text(rows).encode()).hexdigest()

    def recordings_digest(self) -> str:
        """SHA-256 of paths, sizes and modification times of the recordings."""
        rows: list[tuple[str, int, int]] = []
        for clip in self.clips:
            try:
                status = os.stat(clip.path)
            except OSError:
                rows.append((str(clip.path), -1, -1))
                continue
            rows.append((str(clip.path), status.st_size, status.st_mtime_ns))
        return hashlib.sha256(json_text(rows).encode()).hexdigest()


@dataclass(frozen=True)
class Task:
    """One stage for one unit and seed. inputs: names of the tasks whose files it reads, by the name of the input."""

    name: str
    stage: str
    kind: str
    unit: Unit
    seed: int | None
    parameters: dict[str, Any]
    inputs: Mapping[str, tuple[str, ...]]

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of all tasks that it depends on."""
        return tuple(name for names in self.inputs.values() for name in names)

    def key(self, digests: Mapping[str, str]) -> str:
        """Name of its object, given the digests of its inputs, by task. HarkenError where weights are missing."""
        cls = stage_class(self.kind)
        identity: dict[str, Any] = {
            "parameters": self.parameters,
            "clips": self.unit.labels_digest(),
            **cls.identity(cls.Parameters.model_validate(self.parameters)),
            **({"stage_sha256": code_sha256(self.kind)} if is_custom(self.kind) else {}),
        }
        if cls.listens:
            identity["recordings"] = self.unit.recordings_digest()
        if cls.seeded:
            identity["seed"] = self.seed
        inputs = {name: [digests[need] for need in needs] for name, needs in self.inputs.items()}
        return object_key(self.kind, cls.version, identity, inputs)


def make_units(
    clips: Sequence[Clip], machines: Collection[str] | None = None, years: Collection[int] | None = None
) -> list[Unit]:
    """Units with test clips, by set and machine, of these machines and years only. A set is a corpus, and a half
    (`dev`, `eval`) of it where the catalogue has both.

    Raises HarkenError for a machine that the clips do not have, and when no machine is left.
    """
    if years is not None and not any(clip.year in years for clip in clips):
        present = sorted({str(clip.year) for clip in clips if clip.year is not None})
        raise HarkenError(
            f"there are no clips of {', '.join(map(str, sorted(years)))}, whose machines are to be scored",
            next_step=f"Add them, or choose others (--set score_years=[...]); there are {', '.join(present) or 'none'}",
        )
    clips_of = _by_machine([clip for clip in clips if years is None or clip.year in years])
    names = {machine for _, machine in clips_of}
    for machine in machines or ():
        if machine not in names:
            raise HarkenError(f"there is no machine {machine!r}", next_step=there_are(sorted(names)))
    units = []
    for (label, machine), rows in sorted(clips_of.items()):
        if (machines is None or machine in machines) and any(clip.split == "test" and clip.recorded for clip in rows):
            units.append(Unit(label, machine, tuple(map(_without_label, rows))))
    if not units:
        raise HarkenError("there are no machines with test clips", next_step="Check the data: harken data index ROOT")
    return units


def make_common(
    clips: Sequence[Clip], machines: Collection[str] | None = None, years: Collection[int] | None = None
) -> dict[Tests, Unit]:
    """The units of stages of scope `all`: training and supplemental clips of all machines (`none`), the same with test
    clips of these years (`unlabelled`), and with their labels, except those of evaluation sets (`labelled`)."""
    chosen = [clip for clip in clips if clip.split is not None and (machines is None or clip.machine in machines)]
    tested = [clip for clip in chosen if clip.split != "test" or years is None or clip.year in years]
    labelled = tuple(_without_label(clip) if is_evaluation(set_of(clip)) else clip for clip in tested)
    return {
        "none": Unit("", "all machines", tuple(clip for clip in chosen if clip.split != "test")),
        "unlabelled": Unit("", "all machines, tests without labels", tuple(map(_without_label, tested))),
        "labelled": Unit("", "all machines, tests known", labelled),
    }


def is_evaluation(label: str) -> bool:
    """Whether a set, as of `set_of`, is an evaluation set."""
    return label.endswith(" eval")


def set_of(clip: Clip) -> str:
    """Corpus, and half where the catalogue knows it: `dcase2025 dev`."""
    half = catalog.half_of(clip.year, clip.machine, clip.section)
    return " ".join(filter(None, (clip.corpus, half)))


def _by_machine(clips: Sequence[Clip]) -> dict[tuple[str, str], list[Clip]]:
    """Clips by set and machine; those without machine or split are left out."""
    clips_of: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.machine and clip.split is not None:
            clips_of[set_of(clip), clip.machine].append(clip)
    _share_supplements(clips_of)
    return clips_of


def _share_supplements(clips_of: dict[tuple[str, str], list[Clip]]) -> None:
    """Move clips of sections unknown to the catalogue to the half of their machine, where it has only one."""
    for (label, machine), rows in list(clips_of.items()):
        owners = [key for key in clips_of if key[1] == machine and key[0].startswith(f"{label} ")]
        if len(owners) == 1:
            clips_of[owners[0]] += rows
            del clips_of[label, machine]


def _without_label(clip: Clip) -> Clip:
    if clip.split != "test":
        return clip
    return replace(clip, condition="unknown", domain="unknown", attributes={})


def make_tasks(recipe: Recipe, units: Sequence[Unit], common: Mapping[Tests, Unit] | None = None) -> dict[str, Task]:
    """Every task by name, each after those it needs.

    A stage of scope `all` reads a stage of scope `machine` of all machines, those without test clips included. common:
    see `make_common`; without it there are no tasks of scope `all`, nor of stages that depend on them.
    Raises HarkenError for stages that depend on each other in a circle.
    """
    order = _in_order(recipe)
    seeded = {name: stage_class(recipe.stages[name].use).seeded and recipe.stages[name].seed is None for name in order}
    for name in order:
        seeded[name] |= any(seeded[source] for source in recipe.stages[name].inputs)
    once = {} if common is None else {name: common[tests] for name in order if (tests := _tests(recipe, name))}
    first = _before_once(recipe, order)
    untested = [] if common is None else _without_tests(common["none"], units)
    tasks: dict[str, Task] = {}

    def add(name: str, unit: Unit) -> None:
        entry = recipe.stages[name]
        seeds = recipe.seeds if entry.seeds is None else entry.seeds
        for seed in seeds if seeded[name] else (None,):
            inputs = {}
            for input_name, sources in recipe.inputs_of(name).items():
                needs: list[str] = []
                for source in sources:
                    of = [once[source]] if source in once else [unit]
                    if source not in once and name in once:
                        of = [*units, *untested]
                    needs += [task_name(source, machine, seed if seeded[source] else None) for machine in of]
                inputs[input_name] = tuple(needs)
            parameters = stage_class(entry.use).chosen_here(entry.parameters)
            drawn = entry.seed if seed is None else seed
            task = Task(task_name(name, unit, seed), name, entry.use, unit, drawn, parameters, inputs)
            if tasks.keys() >= set(task.needs):
                tasks[task.name] = task

    for name in first:
        for unit in [once[name]] if name in once else [*units, *untested] if _tests(recipe, name) is None else []:
            add(name, unit)
    for unit in units:
        for name in order:
            if name not in first:
                add(name, unit)
    return tasks


def _tests(recipe: Recipe, stage: str) -> Tests | None:
    """The test clips that a stage of scope `all` gets; None for scope `machine`."""
    entry = recipe.stages[stage]
    cls = stage_class(entry.use)
    if cls.scope == "machine":
        return None
    if cls.uses_test_labels(cls.Parameters.model_validate(entry.parameters)):
        return "labelled"
    return "unlabelled" if cls.from_tests else "none"


def _before_once(recipe: Recipe, order: Sequence[str]) -> list[str]:
    """Stages of scope `all` and all their dependencies, in order."""
    chosen: set[str] = set()
    for name in reversed(order):
        if name in chosen or _tests(recipe, name) is not None:
            chosen |= {name, *recipe.stages[name].inputs}
    return [name for name in order if name in chosen]


def _without_tests(common: Unit, units: Sequence[Unit]) -> list[Unit]:
    """Units of the machines without test clips, which are only trained on."""
    tested = {(unit.set, unit.machine) for unit in units}
    return [
        Unit(label, machine, tuple(rows))
        for (label, machine), rows in sorted(_by_machine(common.clips).items())
        if (label, machine) not in tested
    ]


def task_name(stage: str, unit: Unit, seed: int | None) -> str:
    """`autoencoder/dcase2025 dev/fan/seed 0`"""
    return f"{stage}/{unit.name}" + (f"/seed {seed}" if seed is not None else "")


def _in_order(recipe: Recipe) -> list[str]:
    order: list[str] = []
    waiting = list(recipe.stages)
    while waiting:
        ready = [name for name in waiting if all(source in order for source in recipe.stages[name].inputs)]
        if not ready:
            raise HarkenError(
                f"stages {', '.join(waiting)} depend on each other in a circle",
                file=recipe.name,
                next_step="Correct from",
            )
        order += ready
        waiting = [name for name in waiting if name not in ready]
    return order


def describe(task: Task) -> dict[str, Any]:
    """The record beside its object, independent of the place of the data."""
    fields = {key: value for key, value in asdict(task).items() if key in ("stage", "kind", "seed", "parameters")}
    return {**fields, "set": task.unit.set, "machine": task.unit.machine, "clips": len(task.unit.clips)}

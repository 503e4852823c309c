"""A system of a run -> a model that scores single recordings as the run did.

What the run kept is read, not made again: embeddings of the training clips, checkpoints of trainings. Detectors are
fitted on those embeddings once more, which gives the same ones, and compared with the run's held-out scores; recordings
are listened to for what explanations need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.bench.graph import Task, Unit, make_common, make_tasks, make_units, task_name
from harken.bench.recipe import Recipe, load_recipe
from harken.bench.stages import stage_class
from harken.bench.stages.embed import embedding_of
from harken.bench.stages.embed_trained import trained_embedding_of
from harken.bench.stages.tables import by_section, read_arrays, read_ids
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError, did_you_mean
from harken.core.threads import one_thread
from harken.data.clips import Clip
from harken.data.table import read_table
from harken.detection import AnomalyDetector, create_detector
from harken.detection.calibration import Calibration
from harken.detection.composite import Columns, CompositeMember
from harken.embeddings.embedder import ClipFeatures, EmbeddingSpec, weights_digest
from harken.embeddings.extract import extract
from harken.evaluation.scores import Scores, read_scores
from harken.monitor.fitted import Fitted
from harken.monitor.normal_set import Training, names_below_common, notes_on

Float32 = NDArray[np.float32]
#: what a detector for the whole machine is kept under, in the files of a run
_ALL_SECTIONS = "all sections"


@dataclass(frozen=True, eq=False)
class _Source:
    """An embedding of the run: how it is made of a recording, and its columns among those of all sources."""

    spec: EmbeddingSpec
    weights: Mapping[str, np.ndarray] | None
    vectors: Mapping[str, Float32]
    start: int
    stop: int


def package(
    run: Path,
    system: str,
    *,
    machine: str | None = None,
    data_set: str | None = None,
    section: str | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Fitted, str]:
    """What a bundle of the system holds, and the rate of false alarms that its threshold is for.

    run: folder of a run. machine, data_set, section, seed: which of the run's, where it has several.
    Raises HarkenError for a system, machine, set, section or seed that is not there or not the only one, for kinds of
    systems that no model can hold, and where what the run was made of is gone.
    """
    recipe, clips = _recipe(run), read_table(run / "clips.parquet")
    if system not in recipe.systems:
        if system in recipe.ensembles:
            raise HarkenError(
                f"{system} is an ensemble of systems, which are packaged one by one",
                next_step=f"Package its members: {', '.join(recipe.ensembles[system].members)}",
            )
        hint = did_you_mean(system, recipe.systems, f"There are: {', '.join(recipe.systems)}")
        raise HarkenError(f"there is no system {system!r}", file=run, next_step=hint)
    units = make_units(clips, None, recipe.score_years)
    unit = _unit(units, machine, data_set)
    tasks = make_tasks(recipe, units, make_common(clips, None, recipe.score_years))
    target = _target(tasks, recipe, recipe.systems[system], unit, seed)
    packing = _Packing(tasks, _objects(tasks, target, Workspace(run.absolute().parents[1])), unit, workers)
    members = packing.members(target)
    train = packing.training_clips(target, section)
    embeddings_ND = np.stack([packing.vector(clip) for clip in train.clips])
    detector = _detector(members, embeddings_ND.shape[1])
    with one_thread():
        detector.fit(embeddings_ND, [clip.domain for clip in train.clips])
    held_out = packing.scores(target).train
    of_clip = dict(zip(held_out.clip_id, held_out.score_N.tolist(), strict=True))
    expected_N = np.array([of_clip.get(clip.clip_id, np.nan) for clip in train.clips])
    if not np.allclose(detector.train_scores_, expected_N, rtol=1e-6, atol=1e-9):
        raise HarkenError(
            f"held-out scores of {system} are not those of the run, but differ by up to "
            f"{np.abs(detector.train_scores_ - expected_N).max():.2g}",
            file=run,
            next_step="Run it again with this version of Harken",
        )
    spec, weights = packing.embedding()
    features = _features(train.clips, spec, weights, workers, progress)
    calibration = Calibration.fit(detector.train_scores_)
    training = Training(
        names=names_below_common([clip.path for clip in train.clips]),
        domains=tuple(str(clip.domain) for clip in train.clips),
        embeddings_ND=embeddings_ND,
        sketches_NBC=[clip.sketch_BC for clip in features],
        scores_N=detector.train_scores_,
        levels_db_N=np.array([clip.level_db for clip in features]),
        seconds_N=np.array([clip.seconds for clip in features]),
    )
    notes = [f"system {system} of the run {run.absolute().name}, {unit.machine}", *notes_on(training, calibration)]
    away = max(float(np.abs(a.embedding - b).max()) for a, b in zip(features, embeddings_ND, strict=True))
    if away > 0:
        notes.append(f"embeddings made here differ from the run's by up to {away:.2g}, so scores may differ a little")
    rate = stage_class(target.kind).Parameters.model_validate(target.parameters).false_alarms  # type: ignore[attr-defined]
    return Fitted(spec, weights, detector, calibration, training, tuple(notes)), str(rate)


# ------------------------------------------------------------------ which of a run's


def _recipe(run: Path) -> Recipe:
    file = run / "recipe.yaml"
    if not file.is_file():
        raise HarkenError("is no folder of a run", file=run, next_step="Name a folder below runs/")
    return load_recipe(str(file))


def _unit(units: Sequence[Unit], machine: str | None, data_set: str | None) -> Unit:
    chosen = [unit for unit in units if machine in (None, unit.machine) and data_set in (None, unit.set)]
    if len(chosen) == 1:
        return chosen[0]
    there = ", ".join(f"{unit.machine} of {unit.set}" for unit in (chosen or units))
    if chosen:
        raise HarkenError(f"a model is of one machine; there are {there}", next_step="Choose --machine, and --data-set")
    raise HarkenError(f"there is no such machine; there are {there}", next_step="Choose another --machine")


def _target(tasks: Mapping[str, Task], recipe: Recipe, stage: str, unit: Unit, seed: int | None) -> Task:
    seeds = [other for other in (None, *recipe.seeds) if task_name(stage, unit, other) in tasks]
    if not seeds:
        raise HarkenError(f"{stage} was not run for {unit.machine}", next_step="Choose another machine")
    if seed is None and len(seeds) == 1:
        seed = seeds[0]
    if seed not in seeds:
        raise HarkenError(
            "there are several trainings, one of each seed" if seed is None else f"there is no seed {seed}",
            next_step=f"Choose --seed among {', '.join(map(str, seeds))}",
        )
    return tasks[task_name(stage, unit, seed)]


def _objects(tasks: Mapping[str, Task], target: Task, workspace: Workspace) -> dict[str, Object]:
    """What the run has made of the target and all that it needs. Raises HarkenError where some of it is gone."""
    needed = {target.name}
    for name in reversed(list(tasks)):
        if name in needed:
            needed |= set(tasks[name].needs)
    objects: dict[str, Object] = {}
    for name, task in tasks.items():
        if name not in needed:
            continue
        kept = workspace.get(task.key({need: objects[need].digest for need in task.needs}))
        if kept is None:
            raise HarkenError(
                f"{name} is not in the workspace, or the recordings have changed since",
                file=workspace.root,
                next_step="Run the recipe again: what is there is kept",
            )
        objects[name] = kept
    return objects


# ------------------------------------------------------------------ what it is made of


@dataclass(frozen=True)
class _TrainingClips:
    section: str
    clips: list[Clip]


class _Packing:
    def __init__(
        self, tasks: Mapping[str, Task], objects: Mapping[str, Object], unit: Unit, workers: int | None
    ) -> None:
        self.tasks, self.objects, self.unit, self.workers = tasks, objects, unit, workers
        self.sources: dict[str, _Source] = {}

    def members(self, task: Task) -> list[CompositeMember]:
        """Detectors of a task that makes scores, with their columns; embeddings become `sources`."""
        parameters: Any = stage_class(task.kind).Parameters.model_validate(task.parameters)
        if task.inputs.get("clips"):
            raise HarkenError(
                f"{task.stage} learns from clips that a stage has made, which no model keeps",
                next_step="Package a system that learns from recordings only",
            )
        if task.kind == "detect":
            (source,) = task.inputs["embeddings"]
            columns = self._columns(self.tasks[source])
            return [
                CompositeMember(
                    detector=parameters.detector, parameters=parameters.parameters, columns=columns, weight=1.0
                )
            ]
        if task.kind == "combine":
            needs = task.inputs["scores"]
            weights = np.array(parameters.weights if parameters.weights is not None else [1.0] * len(needs))
            mixed = []
            for need, weight in zip(needs, (weights / weights.sum()).tolist(), strict=True):
                inner = self.members(self.tasks[need])
                if len(inner) > 1:
                    whole = Columns(start=0, stop=None, unit=None)
                    inner = [
                        CompositeMember(
                            detector="composite", parameters={"members": inner}, columns=[whole], weight=1.0
                        )
                    ]
                mixed.append({**inner[0], "weight": weight})
            return mixed  # type: ignore[return-value]
        raise HarkenError(
            f"{task.stage} is a stage of the kind {task.kind}, which no model can hold",
            next_step="Package a system that detects on embeddings",
        )

    def _columns(self, task: Task) -> list[Columns]:
        if task.kind == "concatenate":
            parameters: Any = stage_class(task.kind).Parameters.model_validate(task.parameters)
            needs = task.inputs["embeddings"]
            weights = parameters.weights if parameters.weights is not None else (1.0,) * len(needs)
            parts = []
            for need, weight in zip(needs, weights, strict=True):
                inner = self._columns(self.tasks[need])
                if len(inner) > 1:
                    raise HarkenError(
                        f"{task.stage} concatenates concatenations, which no model can hold", next_step="Flatten it"
                    )
                parts.append(Columns(start=inner[0]["start"], stop=inner[0]["stop"], unit=weight))
            return parts
        source = self.sources.get(task.name) or self._read(task)
        return [Columns(start=source.start, stop=source.stop, unit=None)]

    def _read(self, task: Task) -> _Source:
        parameters: Any = stage_class(task.kind).Parameters.model_validate(task.parameters)
        if task.kind == "embed":
            spec, weights = embedding_of(parameters, self.unit.clips, self.workers)
        elif task.kind == "embed_trained":
            (model,) = task.inputs["model"]
            spec, weights = trained_embedding_of(parameters, self.objects[model].folder, self.unit.clips, self.workers)
        else:
            raise HarkenError(
                f"{task.stage} is a stage of the kind {task.kind}, which no model can hold",
                next_step="Package a system that embeds recordings by embed or embed_trained",
            )
        folder = self.objects[task.name].folder
        rows_ND = read_arrays(folder / "embeddings.safetensors")["embeddings"]
        vectors = dict(zip(read_ids(folder)[0], np.asarray(rows_ND, dtype=np.float32), strict=True))
        start = max((source.stop for source in self.sources.values()), default=0)
        source = _Source(spec, weights, vectors, start, start + rows_ND.shape[1])
        self.sources[task.name] = source
        return source

    def scores(self, target: Task) -> Scores:
        """What the run's detector gave its test clips, and its training clips when they were held out."""
        return read_scores(self.objects[target.name].folder / "scores.parquet")[0]

    def training_clips(self, target: Task, section: str | None) -> _TrainingClips:
        """Of one section, or of the machine, those of which the run has every embedding."""
        scores = self.scores(target)
        wide = scores.fitted_on == "machine"
        sections = [_ALL_SECTIONS] if wide else [section for _, section in scores.sections("train")]
        if section is None and len(sections) == 1:
            section = sections[0]
        if section not in sections:
            raise HarkenError(
                f"there are several sections, each with a detector of its own: {', '.join(sections)}"
                if section is None
                else f"there is no section {section!r}",
                next_step=f"Choose --section among {', '.join(sections)}",
            )
        groups = by_section(self.unit.clips, split="train")
        rows = [row for group in groups.values() for row in group] if section == _ALL_SECTIONS else groups[section]
        clips = [self.unit.clips[row] for row in rows]
        kept = [clip for clip in clips if all(clip.clip_id in source.vectors for source in self.sources.values())]
        return _TrainingClips(section, kept)

    def vector(self, clip: Clip) -> Float32:
        """The embeddings of all sources, one after the other."""
        return np.concatenate([source.vectors[clip.clip_id] for source in self.sources.values()])

    def embedding(self) -> tuple[EmbeddingSpec, dict[str, np.ndarray] | None]:
        """How all of them are made of a recording."""
        first, *others = self.sources.values()
        if not others:
            return first.spec, None if first.weights is None else dict(first.weights)
        weights = dict(first.weights or {})
        for number, source in enumerate(others):
            weights |= {f"{number}/{name}": array for name, array in (source.weights or {}).items()}
        more = tuple(source.spec for source in others)
        digest = weights_digest(weights) if weights else None
        return first.spec.model_copy(update={"more": more, "weights_sha256": digest}), weights or None


def _detector(members: list[CompositeMember], dimensions: int) -> AnomalyDetector:
    if len(members) == 1:
        (member,) = members
        if member["columns"] == [Columns(start=0, stop=dimensions, unit=None)]:
            return create_detector(member["detector"], member["parameters"])
    return create_detector("composite", {"members": members})


def _features(
    clips: Sequence[Clip],
    spec: EmbeddingSpec,
    weights: Mapping[str, np.ndarray] | None,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[ClipFeatures]:
    features = []
    for done, heard in enumerate(extract([clip.path for clip in clips], spec, weights, workers=workers), start=1):
        if heard.features is None:
            assert heard.error is not None
            raise heard.error
        features.append(heard.features)
        if progress is not None:
            progress(done, len(clips))
    return features

"""A system or an ensemble of a run -> a model that scores single recordings as the run did.

Objects of the run are read, not made again: embeddings of the training clips, checkpoints of trainings. Detectors are
fitted on those embeddings once more, which gives the same ones, and compared with the run's held-out scores; recordings
are analysed for explanations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.bench.graph import Unit, make_units
from harken.bench.made import Made, MadeByRun
from harken.bench.recipe import Recipe, load_recipe
from harken.bench.stages import stage_class
from harken.bench.stages.embed import embedding_of
from harken.bench.stages.embed_trained import trained_embedding_of
from harken.bench.stages.tables import read_arrays, read_ids
from harken.core.errors import HarkenError, did_you_mean
from harken.core.plugins import custom_names
from harken.core.threads import one_thread
from harken.data.clips import Clip, names_below_common
from harken.data.table import read_table
from harken.detection import AnomalyDetector, create_detector
from harken.detection.calibration import Calibration
from harken.detection.composite import Columns, CompositeMember, Mixing
from harken.embeddings.embedder import ClipFeatures, EmbeddingSpec, weights_digest
from harken.embeddings.extract import extract
from harken.ensemble.bag import Bag, load_bag
from harken.ensemble.runs import SCORES, member_name
from harken.evaluation.scores import Scores, read_scores
from harken.monitor.fitted import Fitted
from harken.monitor.normal_set import Training, notes_on

Float32 = NDArray[np.float32]
#: of ensembles, as the run decides
_FALSE_ALARMS = "10%"


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
    workspace: Path | None = None,
    machine: str | None = None,
    data_set: str | None = None,
    section: str | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """The fitted detector of a system or ensemble.

    run: folder of a run. workspace: of its objects; None: the one that contains the folder. machine, data_set,
    section, seed: which of the run's, where it has several; an ensemble is of all its seeds.
    Raises HarkenError for a system, machine, set, section or seed that is not there or not the only one, for kinds of
    systems that no model can hold, and where what the run was made of is gone.
    """
    recipe, clips, tables = _recipe(run), read_table(run / "clips.parquet"), read_scores(run / SCORES)
    names = [*recipe.systems, *recipe.ensembles]
    if system not in names:
        hint = did_you_mean(system, names)
        raise HarkenError(f"there is no system {system!r}", file=run, next_step=hint)
    unit = _unit(make_units(clips, None, recipe.score_years), machine, data_set)
    made = MadeByRun(run, workspace)
    packing = _Packing(made, unit, workers)
    if system in recipe.ensembles:
        if seed is not None:
            raise HarkenError(f"{system} mixes systems of all seeds", next_step="Leave --seed out")
        member, false_alarms = _ensemble(packing, run, recipe, system, tables), _FALSE_ALARMS
    else:
        stage = recipe.systems[system]
        seed = _seed(made, stage, unit, seed)
        target = made.of(stage, unit.set, unit.machine, seed)
        member = packing.member(target)
        false_alarms = str(_parameters(target).false_alarms)
    table = _table(tables, system, unit, seed)
    train = packing.held_out(table, section)
    of_id = {clip.clip_id: clip for clip in unit.clips}
    learned = [of_id[clip_id] for clip_id in train.clip_id]
    embeddings_ND = np.stack([packing.vector(clip) for clip in learned])
    detector = _detector(member, embeddings_ND.shape[1])
    with one_thread():
        detector.fit(embeddings_ND, [clip.domain for clip in learned])
    if not np.allclose(detector.train_scores_, train.score_N, rtol=1e-6, atol=1e-9):
        raise HarkenError(
            f"held-out scores of {system} are not those of the run, but differ by up to "
            f"{np.abs(detector.train_scores_ - train.score_N).max():.2g}",
            file=run,
            next_step="Run it again with this version of Harken; its members must learn from the same recordings",
        )
    spec, weights = packing.embedding()
    features = _features(learned, spec, weights, workers, progress)
    calibration = Calibration.fit(detector.train_scores_)
    training = Training(
        names=names_below_common([clip.path for clip in learned]),
        domains=tuple(str(clip.domain) for clip in learned),
        embeddings_ND=embeddings_ND,
        sketches_NBC=[clip.sketch_BC for clip in features],
        scores_N=detector.train_scores_,
        levels_db_N=np.array([clip.level_db for clip in features]),
        seconds_N=np.array([clip.seconds for clip in features]),
    )
    notes = [
        f"system {system} of the run {run.absolute().name}, {unit.machine}",
        *(f"{mark}: {reason}" for mark, reason in table.marks.items()),
        *notes_on(training, calibration),
    ]
    away = max(float(np.abs(a.embedding - b).max()) for a, b in zip(features, embeddings_ND, strict=True))
    if away > 0:
        notes.append(f"embeddings made here differ from the run's by up to {away:.2g}, so scores may differ a little")
    return Fitted(spec, weights, detector, calibration, training, false_alarms, notes=tuple(notes))


# ------------------------------------------------------------------ choices


def _recipe(run: Path) -> Recipe:
    file = run / "recipe.yaml"
    if not file.is_file():
        raise HarkenError("is not the folder of a run", file=run, next_step="Give a folder below runs/")
    return load_recipe(str(file))


def _unit(units: Sequence[Unit], machine: str | None, data_set: str | None) -> Unit:
    chosen = [unit for unit in units if machine in (None, unit.machine) and data_set in (None, unit.set)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise HarkenError(
            f"a model is of one machine; there are {_shown(chosen)}", next_step="Choose --machine, and --data-set"
        )
    if machine not in (None, *(unit.machine for unit in units)):
        raise HarkenError(
            f"there is no machine {machine!r}; there are {_shown(units)}", next_step="Choose another --machine"
        )
    if data_set not in (None, *(unit.set for unit in units)):
        raise HarkenError(
            f"there is no data set {data_set!r}; there are {_shown(units)}", next_step="Choose another --data-set"
        )
    raise HarkenError(
        f"{machine} is not a machine of {data_set}; there are {_shown(units)}",
        next_step="Choose another --machine or --data-set",
    )


def _shown(units: Sequence[Unit]) -> str:
    return ", ".join(f"{unit.machine} of {unit.set!r}" for unit in units)


def _seed(made: MadeByRun, stage: str, unit: Unit, seed: int | None) -> int | None:
    seeds = made.seeds(stage, unit.set, unit.machine)
    if not seeds:
        raise HarkenError(f"{stage} was not run for {unit.machine}", next_step="Choose another machine")
    if seed is None and len(seeds) == 1:
        return seeds[0]
    if set(seeds) == {None}:
        raise HarkenError(f"{stage} draws no random numbers: it has no seeds", next_step="Leave --seed out")
    if seed not in seeds:
        raise HarkenError(
            "there are several trainings, one of each seed" if seed is None else f"there is no seed {seed}",
            next_step=f"Choose --seed among {', '.join(map(str, seeds))}",
        )
    return seed


def _table(tables: Sequence[Scores], system: str, unit: Unit, seed: int | None) -> Scores:
    """The machine's rows of a table of the run."""
    for table in tables:
        if (table.system, table.set, table.seed) == (system, unit.set, seed):
            rows = [row for row, machine in enumerate(table.machine) if machine == unit.machine]
            if rows:
                return table.take(rows)
    raise HarkenError(
        f"the run has no scores of {system} for {unit.machine}", next_step="See what was left out in its report"
    )


# ------------------------------------------------------------------ contents


def _parameters(made: Made) -> Any:
    return stage_class(made.kind).Parameters.model_validate(made.parameters)


def _ensemble(packing: _Packing, run: Path, recipe: Recipe, name: str, tables: Sequence[Scores]) -> CompositeMember:
    """The members that a run's ensemble mixes, by the bag that the run has written."""
    file = run / "ensembles" / f"{name}.yaml"
    if not file.is_file():
        raise HarkenError(f"the run has not mixed {name}", file=run, next_step="See its report")
    bag = load_bag(file)
    if bag.transductive():
        raise HarkenError(
            f"{name} is normalised by the test clips themselves, which no single recording has",
            file=file,
            next_step="Normalise by train, gamma, rank or none",
        )
    of_name = {member_name(recipe.name, table): table for table in tables if table.set == packing.unit.set}

    def leaf(entry_name: str) -> CompositeMember:
        table = of_name[entry_name]
        stage = recipe.systems[table.system]
        return packing.member(packing.made.of(stage, packing.unit.set, packing.unit.machine, table.seed))

    def mixed(inner: Bag) -> CompositeMember:
        # The order and the shares of `ensemble.mix`.
        entries = sorted((entry for entry in inner.members if entry.weight > 0), key=lambda entry: entry.name)
        total = math.fsum(entry.weight for entry in entries)
        members = [mixed(entry.inner) if entry.inner is not None else leaf(entry.name) for entry in entries]
        return _mixed(members, [entry.weight / total for entry in entries], inner.normalise)  # type: ignore[arg-type]

    return mixed(bag)


def _mixed(members: Sequence[CompositeMember], weights: Sequence[float], mixing: Mixing) -> CompositeMember:
    weighted = [{**member, "weight": weight} for member, weight in zip(members, weights, strict=True)]
    all_columns = Columns(start=0, stop=None, unit=None)
    return CompositeMember(
        detector="composite", parameters={"members": weighted, "mixing": mixing}, columns=[all_columns], weight=1.0
    )


class _Packing:
    """Collects the contents of a model. sources: the embeddings of its members, by key of the object."""

    def __init__(self, made: MadeByRun, unit: Unit, workers: int | None) -> None:
        self.made, self.unit, self.workers = made, unit, workers
        self.sources: dict[str, _Source] = {}
        #: whether the members' detectors are fitted on sections or machines
        self.fitted_on: set[str] = set()

    def member(self, made: Made) -> CompositeMember:
        """The detector that made these scores, with its columns; embeddings become `sources`."""
        if made.inputs.get("clips"):
            raise HarkenError(
                f"{made.stage} learns from clips that a stage has made, which no model keeps",
                next_step="Package a system that learns from recordings only",
            )
        if made.kind not in ("detect", "combine"):
            raise HarkenError(
                f"{made.stage} is a stage of the kind {made.kind}, which no model can hold",
                next_step="Package a system that detects on embeddings",
            )
        parameters = _parameters(made)
        if made.kind == "combine":
            needs = made.inputs["scores"]
            weights = np.array(parameters.weights if parameters.weights is not None else [1.0] * len(needs))
            members = [self.member(self.made.get(need)) for need in needs]
            return _mixed(members, (weights / weights.sum()).tolist(), "deviations")
        for name in custom_names([parameters.detector, parameters.parameters]):
            raise HarkenError(f"{made.stage} is custom code, {name}, which no model runs", next_step="Package another")
        (source,) = made.inputs["embeddings"]
        self.fitted_on.add(parameters.model)
        return CompositeMember(
            detector=parameters.detector,
            parameters=parameters.parameters,
            columns=self._columns(self.made.get(source)),
            weight=1.0,
        )

    def _columns(self, made: Made) -> list[Columns]:
        if made.kind == "concatenate":
            parameters = _parameters(made)
            needs = made.inputs["embeddings"]
            weights = parameters.weights if parameters.weights is not None else (1.0,) * len(needs)
            columns = []
            for need, weight in zip(needs, weights, strict=True):
                inner = self._columns(self.made.get(need))
                if len(inner) > 1:
                    raise HarkenError(
                        f"{made.stage} concatenates concatenations, which no model can hold", next_step="Flatten it"
                    )
                columns.append(Columns(start=inner[0]["start"], stop=inner[0]["stop"], unit=weight))
            return columns
        source = self.sources.get(made.key) or self._read(made)
        return [Columns(start=source.start, stop=source.stop, unit=None)]

    def _read(self, made: Made) -> _Source:
        if made.kind == "embed":
            spec, weights = embedding_of(_parameters(made), self.unit.clips, self.workers)
        elif made.kind == "embed_trained":
            model = self.made.get(made.inputs["model"][0])
            spec, weights = trained_embedding_of(_parameters(made), model.folder, self.unit.clips, self.workers)
        else:
            raise HarkenError(
                f"{made.stage} is a stage of the kind {made.kind}, which no model can hold",
                next_step="Package a system that embeds recordings by embed or embed_trained",
            )
        for name in custom_names(
            [spec.encoder, *(branch["encoder"] for branch in spec.config.get("model", {}).get("branches", ()))]
        ):
            raise HarkenError(f"{made.stage} is custom code, {name}, which no model runs", next_step="Package another")
        rows_ND = read_arrays(made.folder / "embeddings.safetensors")["embeddings"]
        vectors = dict(zip(read_ids(made.folder)[0], np.asarray(rows_ND, dtype=np.float32), strict=True))
        start = max((source.stop for source in self.sources.values()), default=0)
        source = _Source(spec, weights, vectors, start, start + rows_ND.shape[1])
        self.sources[made.key] = source
        return source

    def held_out(self, table: Scores, section: str | None) -> Scores:
        """Held-out scores of the clips that detectors are fitted on, those of one section or of the machine, in the
        order of sections and names, in which stages and ensembles sum them."""
        train = table.train
        sections = sorted({*train.section})
        if self.fitted_on == {"machine"}:
            if section is not None:
                raise HarkenError("its detector is one for all sections", next_step="Leave --section out")
        elif section is None and len(sections) != 1:
            raise HarkenError(
                f"there are several sections, with one detector per section: {', '.join(sections)}"
                if sections
                else "there are no held-out scores of training clips, by which members are mixed",
                next_step=f"Choose --section among {', '.join(sections)}" if sections else "Choose another system",
            )
        elif section not in (None, *sections):
            raise HarkenError(
                f"there is no section {section!r}", next_step=f"Choose --section among {', '.join(sections)}"
            )
        elif len(self.fitted_on) > 1 and len(sections) > 1:
            raise HarkenError(
                "some of its detectors are fitted on a section and some on the whole machine",
                next_step="Package its members one by one",
            )
        rows = [row for row, name in enumerate(train.section) if section in (None, name)]
        return train.take(sorted(rows, key=lambda row: (train.section[row], train.names[row])))

    def vector(self, clip: Clip) -> Float32:
        """The concatenated embeddings of all sources."""
        return np.concatenate([source.vectors[clip.clip_id] for source in self.sources.values()])

    def embedding(self) -> tuple[EmbeddingSpec, dict[str, np.ndarray] | None]:
        """The specification of all embeddings, and their weights."""
        first, *others = self.sources.values()
        if not others:
            return first.spec, None if first.weights is None else dict(first.weights)
        weights = dict(first.weights or {})
        for number, source in enumerate(others):
            weights |= {f"{number}/{name}": array for name, array in (source.weights or {}).items()}
        more = tuple(source.spec for source in others)
        digest = weights_digest(weights) if weights else None
        return first.spec.model_copy(update={"more": more, "weights_sha256": digest}), weights or None


def _detector(member: CompositeMember, dimensions: int) -> AnomalyDetector:
    everything: list[Columns] = [Columns(start=0, stop=stop, unit=None) for stop in (None, dimensions)]
    if any(member["columns"] == [columns] for columns in everything):
        return create_detector(member["detector"], member["parameters"])
    return create_detector("composite", {"members": [member], "mixing": "single"})


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

"""Detectors and embeddings of a run's system, as one model holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.bench.graph import Unit
from harken.bench.made import Made, MadeByRun
from harken.bench.recipe import Recipe
from harken.bench.stages import stage_class
from harken.bench.stages.embed import embedding_of
from harken.bench.stages.embed_trained import trained_embedding_of
from harken.bench.stages.tables import read_arrays, read_ids
from harken.core.errors import HarkenError
from harken.core.plugins import custom_names
from harken.data.clips import Clip
from harken.detection import AnomalyDetector, create_detector
from harken.detection.composite import Columns, CompositeMember, Mixing
from harken.embeddings.embedder import ClipFeatures, EmbeddingSpec, weights_digest
from harken.embeddings.extract import extract
from harken.ensemble.bag import Bag, load_bag
from harken.ensemble.runs import member_name
from harken.evaluation.scores import Scores

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Source:
    """An embedding of the run: how it is made of a recording, and its columns among those of all sources."""

    spec: EmbeddingSpec
    weights: Mapping[str, np.ndarray] | None
    vectors: Mapping[str, Float32]
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class ModelContents:
    """What a model is made of.

    spec, weights: of embeddings. detector: fitted. clips: those it learned from, with their features and embeddings (N,
    D). false_alarms: the rate that the alarm is set for. notes: what the maker should know.
    """

    spec: EmbeddingSpec
    weights: Mapping[str, np.ndarray] | None
    detector: AnomalyDetector
    clips: Sequence[Clip]
    features: Sequence[ClipFeatures]
    embeddings_ND: Float32
    false_alarms: str
    notes: tuple[str, ...] = ()


def parameters_of(made: Made) -> Any:
    """Parameters of the stage that made an object."""
    return stage_class(made.kind).Parameters.model_validate(made.parameters)


def ensemble_member(
    packing: Packing, run: Path, recipe: Recipe, name: str, tables: Sequence[Scores]
) -> CompositeMember:
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


class Packing:
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
        if made.kind == "reconstruct":
            raise HarkenError(
                f"{made.stage} scores by an autoencoder, which no model mixes with other systems",
                next_step="Package its members one by one",
            )
        if made.kind not in ("detect", "combine"):
            raise HarkenError(
                f"{made.stage} is a stage of the kind {made.kind}, which no model can hold",
                next_step="Package a system that detects on embeddings",
            )
        parameters = parameters_of(made)
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
            parameters = parameters_of(made)
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
            encoders = [self.made.get(need).folder for need in made.inputs.get("encoder", ())]
            spec, weights = embedding_of(parameters_of(made), self.unit.clips, self.workers, encoders)
        elif made.kind == "embed_trained":
            model = self.made.get(made.inputs["model"][0])
            spec, weights = trained_embedding_of(parameters_of(made), model.folder, self.unit.clips, self.workers)
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


def detector_of(member: CompositeMember, dimensions: int) -> AnomalyDetector:
    """The unfitted detector of a model with embeddings of so many dimensions."""
    everything: list[Columns] = [Columns(start=0, stop=stop, unit=None) for stop in (None, dimensions)]
    if any(member["columns"] == [columns] for columns in everything):
        return create_detector(member["detector"], member["parameters"])
    return create_detector("composite", {"members": [member], "mixing": "single"})


def features_of(
    clips: Sequence[Clip],
    spec: EmbeddingSpec,
    weights: Mapping[str, np.ndarray] | None,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[ClipFeatures]:
    """What a model keeps of each clip. Raises the error of the first that cannot be used."""
    features = []
    for done, extracted in enumerate(extract([clip.path for clip in clips], spec, weights, workers=workers), start=1):
        if extracted.features is None:
            assert extracted.error is not None
            raise extracted.error
        features.append(extracted.features)
        if progress is not None:
            progress(done, len(clips))
    return features

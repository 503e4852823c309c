"""Ensembles of a recipe: systems of a run mixed with given weights, or with weights found on its development set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harken.bench.graph import is_evaluation
from harken.bench.recipe import EnsembleEntry, Recipe, SearchEntry
from harken.bench.workspace import Workspace, object_key
from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.core.plain_yaml import read_yaml_file
from harken.core.plugins import code_identity
from harken.data.truth import Truth
from harken.ensemble.bag import Bag, BagMember, Origin
from harken.ensemble.fit import fit
from harken.ensemble.member import Member, Source
from harken.ensemble.mix import clip_digests
from harken.ensemble.runs import member_name
from harken.ensemble.score import apply, decided
from harken.ensemble.search import SearchSettings
from harken.ensemble.selection import Selection
from harken.evaluation.score_files import write_score_files
from harken.evaluation.scores import PUBLISHED, USE_LABELS, Scores

#: end of a name by which the seeds of one system differ, which are mixed evenly first
_SEEDS = r"/seed_\d+$"
_VERSION = 2


@dataclass(frozen=True)
class Labels:
    """Labels of a set's test clips. year: of their official rule."""

    truth: Truth
    year: int | None


@dataclass(frozen=True)
class Mix:
    """How an ensemble was mixed.

    weights: system -> weight, of sum one. source: where they come from. tuned_on: the set whose labels found them.
    left_out: the official score on that set with each machine scored by weights found on the others. label_free: the
    weights use no labels, and no member uses labels of test clips of these machines.
    """

    weights: dict[str, float]
    source: str
    tuned_on: str | None = None
    left_out: float | None = None
    label_free: bool = False


@dataclass(frozen=True)
class Mixed:
    """An ensemble on one set: its scores and the folder of their files; or the error."""

    name: str
    set: str
    folder: Path
    scores: Scores | None = None
    mix: Mix | None = None
    error: HarkenError | None = None


def mix_systems(
    recipe: Recipe, folder: Path, systems: Sequence[Scores], labels: Mapping[str, Labels], workspace: Workspace
) -> list[Mixed]:
    """Every ensemble of the recipe on every set of the systems of a run.

    labels: of the sets on which weights may be found; evaluation sets are not among them. Weights of searches are
    kept in the workspace. Score files are written below the run's folder, and bags to `ensembles/<name>.yaml`, for
    `harken ensemble score` to apply them elsewhere.
    """
    sets = list(dict.fromkeys(scores.set for scores in systems))
    members: dict[str, dict[str, Member]] = {label: {} for label in sets}
    for scores in systems:
        name = member_name(recipe.name, scores)
        several = scores.set if len(sets) > 1 else None
        members[scores.set][name] = Member(replace(scores, system=name), Source(folder, name, several))
    mixed = []
    for name, entry in recipe.ensembles.items():
        place = folder / "scores" / name
        try:
            bag, how = _weighed(recipe, name, entry, members, labels, workspace)
        except HarkenError as error:
            mixed.append(Mixed(name, sets[0], place, error=error))
            continue
        (folder / "ensembles").mkdir(exist_ok=True)
        write_atomically(folder / "ensembles" / f"{name}.yaml", bag.as_yaml().encode())
        for label in sets:
            into = place / label.replace(" ", "_") if len(sets) > 1 else place
            try:
                scores = replace(decided(apply(bag, list(members[label].values()))), set=label)
                write_score_files(scores, into)
                mixed.append(Mixed(name, label, into, scores, _honest(how, scores)))
            except HarkenError as error:
                mixed.append(Mixed(name, label, into, error=error))
    return mixed


def _honest(how: Mix, scores: Scores) -> Mix:
    """Without `label_free` where a member uses labels of these machines."""
    return replace(how, label_free=how.label_free and not USE_LABELS & scores.marks.keys())


def _weighed(
    recipe: Recipe,
    name: str,
    entry: EnsembleEntry,
    members: Mapping[str, Mapping[str, Member]],
    labels: Mapping[str, Labels],
    workspace: Workspace,
) -> tuple[Bag, Mix]:
    first = next(iter(members))
    labelled = [label for label in labels if label in members]
    tuned_on = next(iter(labelled), None)
    if entry.search is not None and tuned_on is not None:
        if entry.search.labels_of in labelled:
            tuned_on = entry.search.labels_of
        of_system = {system: _seeds(recipe, name, system, members[tuned_on]) for system in entry.members}
        chosen = [member for seeds in of_system.values() for member in seeds]
        selection = _selection(recipe, entry.search, of_system)
        bag, left_out = _searched(name, entry, chosen, selection, labels[tuned_on], workspace)
        source = f"{entry.search.method} search on the labels of {tuned_on}"
        if selection is not None:
            source += f", of {_selected(entry.search)}"
        return bag, Mix(_shares(recipe, bag), source, tuned_on, left_out)
    bag = _given(recipe, name, entry, members[first])
    if entry.tuned:
        digests: dict[str, str] = {}
        for label, of in members.items():
            if not is_evaluation(label):
                digests |= {digest: machine for machine, digest in clip_digests(next(iter(of.values())).scores).items()}
        origin = Origin(
            method=PUBLISHED,
            considered=len(entry.members),
            tuned_on=entry.tuned,
            machines=tuple(sorted(set(digests.values()))),
            clips=tuple(digests),
        )
        bag = bag.model_copy(update={"weights_from": origin})
    equal = len(set(entry.members.values())) == 1
    source = "equal" if equal else f"published; chosen by {entry.tuned}" if entry.tuned else "given"
    if equal and entry.search is not None:
        source += ": there is no development set with labels to find others on"
    return bag, Mix(_shares(recipe, bag), source, label_free=equal)


def _given(recipe: Recipe, name: str, entry: EnsembleEntry, members: Mapping[str, Member]) -> Bag:
    members_of_bag = []
    for system, weight in entry.members.items():
        seeds = [member.name for member in _seeds(recipe, name, system, members)]
        if len(seeds) == 1:
            members_of_bag.append(BagMember(name=seeds[0], weight=weight))
        else:
            plain = f"{recipe.name}/{system}"
            inner = Bag(name=plain, normalise=entry.normalise, members=tuple(BagMember(name=seed) for seed in seeds))
            members_of_bag.append(BagMember(name=plain, weight=weight, bag=inner))
    return Bag(name=name, normalise=entry.normalise, members=tuple(members_of_bag))


def _seeds(recipe: Recipe, name: str, system: str, members: Mapping[str, Member]) -> list[Member]:
    """A system of the run, or each of its seeds."""
    plain = f"{recipe.name}/{system}"
    names = [name for name in sorted(members) if name == plain or name.startswith(f"{plain}/seed_")]
    if not names:
        raise HarkenError(
            f"its member {system} has no scores", file=name, next_step="See the failed tasks, and run again"
        )
    return [members[name] for name in names]


def _selection(recipe: Recipe, search: SearchEntry, of_system: Mapping[str, Sequence[Member]]) -> Selection | None:
    """By the names of groups: of a system with one seed that of its only member."""
    if search.select is None:
        return None
    required = (
        seeds[0].name if len(seeds) == 1 else f"{recipe.name}/{system}"
        for system in search.required
        for seeds in [of_system[system]]
    )
    return Selection(tuple(required), search.select, search.select_by)


def _selected(search: SearchEntry) -> str:
    """`baseline and the best 2 by score`"""
    best = f"the best {search.select} by {search.select_by.replace('_', ' ')}"
    return " and ".join([*search.required, *([best] if search.select else [])])


def _searched(
    name: str,
    entry: EnsembleEntry,
    members: Sequence[Member],
    selection: Selection | None,
    labels: Labels,
    workspace: Workspace,
) -> tuple[Bag, float | None]:
    """A bag with weights found by labels, and its official score on machines left out."""
    assert entry.search is not None
    identity = {"name": name, "entry": entry.model_dump(mode="json"), "year": labels.year,
             **code_identity(entry.search.method)}  # fmt: skip
    key = object_key("ensemble", _VERSION, identity, {"scores": [_digest(members, labels.truth)]})
    stored = workspace.get(key)
    if stored is None:
        asked = entry.search
        proof = fit(
            members,
            labels.truth,
            method=asked.method,
            normalise=entry.normalise,
            year=labels.year,
            groups=_SEEDS,
            selection=selection,
            keep_fitted=True,
            settings=SearchSettings(
                steps=asked.steps, best=asked.best, step=asked.step, trials=asked.trials, seed=asked.seed
            ),
            draws=0,
            name=name,
        )
        row = next(row for row in proof.rows if row.name == asked.method)
        made = workspace.new(key)
        try:
            (made / "bag.yaml").write_text(_by_name(proof.bag).as_yaml(), encoding="utf-8")
            left_out = None if row.held_out is None else row.held_out.value
            (made / "numbers.json").write_text(json_text({"left_out": left_out}))
            stored = workspace.keep(key, made, {"stage": name, "kind": "ensemble", "parameters": identity["entry"]})
        except BaseException:
            workspace.drop(made)
            raise
    bag = Bag.model_validate(read_yaml_file(stored.folder / "bag.yaml"))
    return bag, json.loads((stored.folder / "numbers.json").read_text())["left_out"]


def _by_name(bag: Bag) -> Bag:
    """The same without paths of members, so that objects do not depend on the place of the workspace."""
    members = [
        BagMember(name=member.name, weight=member.weight, bag=None if member.inner is None else _by_name(member.inner))
        for member in bag.members
    ]
    return bag.model_copy(update={"members": tuple(members)})


def _shares(recipe: Recipe, bag: Bag) -> dict[str, float]:
    """Weight of each system; they sum to one."""
    shares: dict[str, float] = {}
    total = sum(entry.weight for entry in bag.members)
    for entry in bag.members:
        system = entry.name.removeprefix(f"{recipe.name}/").split("/seed_")[0]
        shares[system] = shares.get(system, 0.0) + entry.weight / total
    return shares


def _digest(members: Sequence[Member], truth: Truth) -> str:
    """SHA-256 of all scores, those of training clips included, and labels."""
    digest = hashlib.sha256()
    for member in members:
        rows = sorted([row.machine, row.section, row.split, row.file, row.score] for row in member.scores.rows())
        digest.update(json_text([member.name, dict(member.scores.marks), rows]).encode())
    labels = [[key, sorted((clip, asdict(label)) for clip, label in of.items())] for key, of in truth.labels.items()]
    digest.update(json_text(sorted(labels, key=lambda row: row[0]), default=str).encode())
    return digest.hexdigest()

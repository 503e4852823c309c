"""Ensembles of a recipe: systems of a run mixed with given weights, each a mean of its seeds first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harken.ensemble.bag import Bag, Entry
from harken.ensemble.members import Member
from harken.ensemble.runs import members_of_run
from harken.ensemble.score import apply, write_scores
from harken.errors import HarkenError
from harken.pipeline.recipe import EnsembleEntry, Recipe


@dataclass(frozen=True)
class Mixed:
    """An ensemble on one set: its scores and where they were written; or why there is none."""

    name: str
    set: str
    member: Member | None
    folder: Path
    why: str = ""


def mix_systems(recipe: Recipe, folder: Path, sets: Sequence[str]) -> list[Mixed]:
    """Every ensemble of the recipe on every set of a run that has been written to `folder`.

    Bags are written to `ensembles/<name>.yaml`, so that `harken ensemble score` can apply them elsewhere.
    """
    found = []
    for label in sets:
        members = {member.name: member for member in members_of_run(folder, label)}
        for name, entry in recipe.ensembles.items():
            place = folder / "scores" / name
            place = place / label.replace(" ", "_") if len(sets) > 1 else place
            try:
                bag = _bag(recipe.name, name, entry, members)
                made = apply(bag, list(members.values()))
                write_scores(made, place)
            except HarkenError as error:
                found.append(Mixed(name, label, None, place, str(error)))
                continue
            (folder / "ensembles").mkdir(exist_ok=True)
            (folder / "ensembles" / f"{name}.yaml").write_text(bag.as_yaml(), encoding="utf-8")
            found.append(Mixed(name, label, made, place))
    return found


def _bag(recipe: str, name: str, entry: EnsembleEntry, members: Mapping[str, Member]) -> Bag:
    parts = []
    for system, weight in entry.members.items():
        plain = f"{recipe}/{system}"
        seeds = sorted(known for known in members if known.startswith(f"{plain}/seed_"))
        if plain in members:
            parts.append(Entry(name=plain, weight=weight))
        elif len(seeds) == 1:
            parts.append(Entry(name=seeds[0], weight=weight))
        elif seeds:
            inner = Bag(name=plain, normalise=entry.normalise, members=tuple(Entry(name=seed) for seed in seeds))
            parts.append(Entry(name=plain, weight=weight, bag=inner))
        else:
            raise HarkenError(
                f"its member {system} has no scores",
                file=name,
                next_step="See why among the failed tasks, and run again",
            )
    return Bag(name=name, normalise=entry.normalise, members=tuple(parts))

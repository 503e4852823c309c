"""The systems of a run as members, read from its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError, there_are
from harken.core.plain_yaml import read_yaml_file
from harken.ensemble.member import Member, Source
from harken.evaluation.scores import Scores, read_scores

#: in the folder of a run: every score of every system
SCORES = "scores.parquet"


def members_of_run(folder: Path, data_set: str | None) -> list[Member]:
    """The systems of a run on one set, per seed, without its ensembles, with held-out scores of training clips.

    They are named `recipe/system` or `recipe/system/seed_1`. Raises HarkenError for a run of several sets without
    `data_set`, and for a set that it does not have.
    """
    tables = read_scores(folder / SCORES)
    recipe = _recipe(folder)
    sets = list(dict.fromkeys(table.set for table in tables))
    if data_set is not None and data_set not in sets:
        raise HarkenError(f"the run has no set {data_set!r}", file=folder, next_step=there_are(sets))
    if data_set is None and len(sets) > 1:
        raise HarkenError(
            f"the run has several sets: {', '.join(sets)}", file=folder, next_step="Choose one with --data-set"
        )
    label = data_set or sets[0]
    members = []
    for table in tables:
        if table.set == label and table.system not in recipe["ensembles"]:
            name = member_name(recipe["name"], table)
            members.append(Member(replace(table, system=name), Source(folder, name, data_set)))
    return sorted(members, key=lambda member: member.name)


def member_name(recipe: str, scores: Scores) -> str:
    """`recipe/system/seed_1`"""
    return f"{recipe}/{scores.system}" + (f"/seed_{scores.seed}" if scores.seed is not None else "")


def _recipe(folder: Path) -> dict[str, Any]:
    """Name of the run's recipe, and its ensembles: mixes of its other systems."""
    file = folder / "recipe.yaml"
    try:
        recipe = read_yaml_file(file)
        return {"name": str(recipe["name"]), "ensembles": set(recipe.get("ensembles") or {})}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise HarkenError(
            f"is not the recipe of a run ({error})", file=file, next_step="Run the recipe again"
        ) from None

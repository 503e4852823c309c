"""Stages that run with some of the recipe's seeds only: fewer tasks, fewer members, the same objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harken.bench.graph import make_common, make_tasks, make_units
from harken.bench.recipe import load_recipe
from harken.bench.run import load_clips
from harken.core.errors import HarkenError
from test_pipeline import run


def members(recipe: Any, plant: Path) -> dict[str, set[int | None]]:
    """Seeds of the scores of each system."""
    clips, _ = load_clips(plant)
    tasks = make_tasks(recipe, make_units(clips), make_common(clips)).values()
    return {system: {task.seed for task in tasks if task.stage == stage} for system, stage in recipe.systems.items()}


def test_what_depends_on_a_stage_has_its_seeds(plant: Path, tmp_path: Path) -> None:
    tiny = load_recipe("thuee_system1", profile="tiny", changes={"seeds": [0, 1, 2], "stages.beats.seeds": [0, 2]})
    assert members(tiny, plant) == {"beats": {0, 2}, "eat": {0, 1, 2}, "fisher": {0, 1, 2}}
    detector = load_recipe("thuee_system1", profile="tiny", changes={"stages.eat_nearest.seeds": [1]})
    assert members(detector, plant) == {"beats": {0, 1}, "eat": {1}, "fisher": {0, 1}}
    # It is written as it is read, and recipes without it as before.
    file = tmp_path / "again.yaml"
    file.write_text(detector.as_yaml())
    assert load_recipe(str(file)) == detector
    assert "seeds" not in load_recipe("thuee_system1").model_dump(mode="json")["stages"]["beats"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.beats.seeds": [5]}, "stages.beats.seeds are different ones of the recipe's, at least one. Choose"),
        ({"stages.beats.seeds": []}, "at least one"),
        ({"stages.beats.seeds": [0, 0]}, "different ones"),
        ({"stages.beats.seeds": "all"}, "stages.beats.seeds"),
        ({"stages.labels.seeds": [0]}, "stage labels draws no random numbers"),
    ],
)
def test_seeds_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HarkenError, match=message):
        load_recipe("thuee_system1", changes=changes)


def test_ensembles_are_of_the_seeds_that_there_are(plant: Path, tmp_path: Path) -> None:
    recipe = """
name: seeds
title: Seeds
seeds: [0, 1]
stages:
  frames: {use: frames, encoder: log_mel}
  few: {use: autoencoder, from: frames, epochs: 1, seeds: [1]}
  all: {use: autoencoder, from: frames, epochs: 1}
  few_scores: {use: reconstruct, from: [few, frames]}
  all_scores: {use: reconstruct, from: [all, frames]}
systems: {few: few_scores, all: all_scores}
ensembles: {together: {members: [few, all]}}
profiles: {tiny: {}}
"""
    file = tmp_path / "seeds.yaml"
    file.write_text(recipe)
    done, _ = run(plant, tmp_path / "work", str(file))
    assert not done.failures
    assert [(scored.system, scored.seed) for scored in done.systems] == [
        ("few", 1), ("all", 0), ("all", 1), ("together", None),
    ]  # fmt: skip

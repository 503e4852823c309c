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
        ({"stages.labels.seed": 0}, "stage labels draws no random numbers"),
        ({"stages.beats.seed": 0, "stages.beats.seeds": [0]}, "stage beats has seeds and a seed"),
        ({"stages.beats.seed": -1}, "stages.beats.seed"),
    ],
)
def test_seeds_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HarkenError, match=message):
        load_recipe("thuee_system1", changes=changes)


def test_a_stage_that_runs_once_is_read_by_all_seeds(plant: Path, tmp_path: Path) -> None:
    file = tmp_path / "once.yaml"
    file.write_text("""
name: once
title: Once
seeds: [0, 1]
stages:
  noisy: {use: mix, seed: 7}
  labels: {use: labels, from: noisy}
  train:
    use: train
    from: [labels, noisy]
    model: {branches: [{encoder: dasheng, size: tiny, head: {kind: mean}}]}
    training: {steps: 1, batch: 2, seconds: 1.0}
  embed: {use: embed_trained, from: train}
  nearest: {use: detect, from: embed}
systems: {nearest: nearest}
""")
    recipe = load_recipe(str(file))
    clips, _ = load_clips(plant)
    tasks = make_tasks(recipe, make_units(clips), make_common(clips))
    assert [(name, task.seed) for name, task in tasks.items() if task.stage in ("noisy", "labels", "train")] == [
        ("noisy/all machines", 7),
        ("labels/all machines", None),
        ("train/all machines/seed 0", 0),
        ("train/all machines/seed 1", 1),
    ]
    assert members(recipe, plant) == {"nearest": {0, 1}}
    assert "seed: 7" in recipe.as_yaml()
    # A stage that runs once reads none that runs with every seed.
    file.write_text(
        file.read_text()
        .replace("seed: 7", "snr_db: [0, 1]")
        .replace("from: [labels, noisy]", "seed: 0\n    from: [labels, noisy]")
    )
    with pytest.raises(HarkenError, match="stage train runs once, and reads labels, which runs with every seed"):
        load_recipe(str(file))


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

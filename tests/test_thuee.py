"""THUEE's four systems: their models, what they share, what they plan; screening by a trained classifier."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from harken.bench.graph import Task, make_common, make_tasks, make_units
from harken.bench.plan import make_plan
from harken.bench.recipe import Recipe, load_recipe
from harken.bench.run import load_clips
from harken.bench.stages.tables import read_clips
from test_finetune import objects
from test_pipeline import run
from test_plan import check_plan

MODELS = {"thuee_system1": 15, "thuee_system2": 74, "thuee_system3": 34, "thuee_system4": 38}


def tasks_of(recipe: Recipe, plant: Path) -> dict[str, Task]:
    clips, _ = load_clips(plant)
    return make_tasks(recipe, make_units(clips), make_common(clips))


def keys(recipe: Recipe, plant: Path, kind: str) -> Counter[str]:
    """Tasks of a kind by the names of their objects, as if each object's digest were its key."""
    tasks, digests = tasks_of(recipe, plant), {}
    for name, task in tasks.items():
        digests[name] = task.key(digests)
    return Counter(digests[name] for name, task in tasks.items() if task.kind == kind)


@pytest.mark.parametrize("name", MODELS)
def test_the_ensembles_are_of_as_many_models_as_the_report_says(name: str, plant: Path) -> None:
    recipe = load_recipe(name, changes={"score_years": None})
    tasks = tasks_of(recipe, plant).values()
    machine = next(task.unit.machine for task in tasks if task.kind == "detect")
    scored = Counter(task.stage for task in tasks if task.kind == "detect" and task.unit.machine == machine)
    (system,) = recipe.submission
    members = [recipe.systems[member] for member in recipe.ensembles[system].members]
    assert sum(scored[stage] for stage in members) == MODELS[name]
    assert recipe.meta["system"]["description"]["ensemble_method_subsystem_count"] == MODELS[name]


@pytest.mark.parametrize(("name", "others"), [("thuee_system2", 18), ("thuee_system3", 6), ("thuee_system4", 6)])
def test_models_of_system_1_are_not_trained_again(name: str, others: int, plant: Path) -> None:
    first = keys(load_recipe("thuee_system1", profile="tiny"), plant, "train")
    again = keys(load_recipe(name, profile="tiny"), plant, "train")
    assert first.total() == len(first) == 6, "three encoders, two seeds"
    assert first.keys() <= again.keys()
    assert len(again) == len(first) + others


def test_system_2_has_the_models_of_systems_3_and_4(plant: Path) -> None:
    largest = keys(load_recipe("thuee_system2", profile="tiny"), plant, "train")
    for name in ("thuee_system3", "thuee_system4"):
        assert keys(load_recipe(name, profile="tiny"), plant, "train").keys() <= largest.keys()


@pytest.mark.parametrize("name", ["thuee_system2", "thuee_system3", "thuee_system4"])
def test_plans_are_complete_without_data_and_weights(name: str) -> None:
    recipe = load_recipe(name)
    plan = make_plan(recipe, None, None)
    check_plan(recipe, plan)
    assert plan["total"]["unknown"] == []
    assert {row["stage"] for row in plan["stages"]} == {*recipe.stages}
    missing = "\n".join(plan["missing"])
    for weights in ("beats-iter3", "eat-base-epoch30-pretrain", "fisher-small"):
        assert f"the weights {weights} are not on this machine" in missing
    assert ("tangoflux" in missing) == (name != "thuee_system3")


RECIPE = """
name: screened
title: Screened
stages:
  labels: {use: labels, policy: thuee}
  train:
    use: train
    from: labels
    model: {branches: [{encoder: dasheng, size: tiny, head: {kind: mean}}]}
    training: {steps: 12, batch: 8, seconds: 1.0, learning_rate: 0.003, warmup: 2, choose: last}
  made: {use: import_clips, folder: FOLDER}
  screened: {use: screen, from: [made, train, labels], classifier: trained}
  embed: {use: embed_trained, from: [train, made]}
  page: {use: generation_report, from: [embed, made, screened]}
  nearest: {use: detect, from: embed}
systems: {nearest: nearest}
profiles: {tiny: {}}
"""


def test_clips_that_a_trained_classifier_takes_for_another_condition_are_not_kept(plant: Path, tmp_path: Path) -> None:
    """Sound of the valve that is said to be of the fan, and the fan's own."""
    train = [clip for clip in load_clips(plant)[0] if clip.split == "train" and clip.kind == "machine"]
    fans, valves = ([clip for clip in train if clip.machine == machine] for machine in ("fan", "valve"))
    folder = tmp_path / "made"
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", "id", "parent"])
        for name, sounds, parents in (("fan", fans, fans), ("valve", valves, [fans[0]] * len(valves))):
            for number, (sound, parent) in enumerate(zip(sounds, parents, strict=False)):
                shutil.copyfile(sound.path, folder / f"{name}-{number}.wav")
                writer.writerow([f"{name}-{number}.wav", f"{name}-{number}", parent.clip_id])
    file = tmp_path / "screened.yaml"
    file.write_text(RECIPE.replace("FOLDER", str(folder)))
    done, _ = run(plant, tmp_path / "work", str(file))
    assert not done.failures
    (screened,) = objects(tmp_path / "work", "screen")
    report = json.loads((screened / "screening.json").read_text())
    rows = report["clips"]
    assert all((row["verdict"] == "kept") == (row["predicted"] == row["intended"]) for row in rows)
    assert all(row["confidence"] > 0 for row in rows)
    kept = {row["clip_id"] for row in rows if row["verdict"] == "kept"}
    assert not any(name.startswith("valve") for name in kept), "another machine is told apart after a few steps"
    # What is kept is a copy with the parent of the original, of the same condition.
    made = {clip.clip_id.split("#")[0]: clip for clip in read_clips(screened)}
    assert made.keys() == kept
    of_id = {clip.clip_id: clip for clip in train}
    assert all(clip.attributes == of_id[clip.parents[0]].attributes for clip in made.values())
    counts = report["conditions"]
    assert sum(count["made"] for count in counts.values()) == len(rows)
    assert sum(count["kept"] for count in counts.values()) == len(kept)
    # A condition of which nothing is kept is named.
    notes = " ".join(done.notes)
    for name, count in counts.items():
        assert (f"none of {count['made']} generated clips of {name} is kept" in notes) == (count["kept"] == 0)
    (page,) = objects(tmp_path / "work", "generation_report")
    for row in json.loads((page / "report.json").read_text()):
        if row["made"] == "source 1":
            assert 0 <= row["kept"] <= 1

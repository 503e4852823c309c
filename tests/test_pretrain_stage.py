"""Pre-training and pseudo-attributes in recipes: one encoder for what follows, its cost, clusters as classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import yaml
from safetensors.numpy import load_file

from conftest import hum
from harken.bench import counting
from harken.bench.plan import make_plan
from harken.bench.recipe import load_recipe
from harken.core.errors import HarkenError
from harken.data.clips import Clip, derive
from harken.data.labels import ClassTable, label_clips
from harken.data.pseudo_labels import with_pseudo_attributes
from harken.encoders.checkpoints import load
from harken.training.checkpoints import read_checkpoint
from harken.training.pretrain.settings import PretrainingSpec
from test_finetune import objects
from test_pipeline import contents, run

SMALL = {"width": 48, "depth": 2, "target_frames": 64}
RECIPE: dict[str, Any] = {
    "name": "second_stage",
    "title": "Pre-training, pseudo-attributes, fine-tuning",
    "stages": {
        "pretrain": {
            "use": "pretrain", "encoder": "eat", "size": "tiny", "config": SMALL, "steps": 3, "batch": 4, "clones": 2,
            "seconds": 0.6, "learning_rate": 0.001, "evaluate_every": 2, "save_every": 2, "decoder": {"layers": 1},
        },
        "frozen": {"use": "embed", "from": "pretrain", "encoder": "eat", "weights": "pretrained"},
        "frozen_nearest": {"use": "detect", "from": "frozen", "detector": "knn"},
        "classes": {"use": "pseudo_labels", "from": "frozen", "policy": "thuee", "clusters": 3},
        "train": {
            "use": "train", "from": ["classes", "pretrain"],
            "model": {"branches": [{"encoder": "eat", "weights": "pretrained", "head": {"kind": "cls"}}]},
            "training": {"steps": 2, "batch": 4, "seconds": 0.6, "choose": "last", "evaluate_every": 1, "keep": 1},
        },
        "tuned": {"use": "embed_trained", "from": "train"},
        "tuned_nearest": {"use": "detect", "from": "tuned", "detector": "knn"},
    },
    "systems": {"frozen": "frozen_nearest", "tuned": "tuned_nearest"},
}  # fmt: skip


def written(folder: Path, changes: dict[str, Any] | None = None) -> str:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**RECIPE, **(changes or {})}))
    return str(file)


@pytest.fixture(scope="module")
def whole(plant: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A workspace in which the recipe was run."""
    return once("second_stage", lambda folder: run(plant, folder, written(folder), profile="full"))


def test_from_sound_to_scores(plant: Path, whole: Path) -> None:
    done, started = run(plant, whole, str(whole / "recipe.yaml"), profile="full")
    assert started == []
    assert not done.failures
    assert [system.system for system in done.systems] == ["frozen", "tuned"]
    (pretrained,) = objects(whole, "pretrain")
    encoder = load(pretrained / "encoder.safetensors")
    assert encoder.config == {**SMALL, "heads": 4}
    history = json.loads((pretrained / "history.json").read_text())
    assert [row["step"] for row in history["evaluations"]] == [2, 3]
    # Training and supplemental clips of both machines.
    assert len(json.loads((pretrained / "clips.json").read_text())["clips"]) == 28
    assert json.loads((pretrained / "training.json").read_text())["training"]["settings"]["steps"] == 3
    # What is fine-tuned began with it, and needs no other file to be used.
    (trained,) = objects(whole, "train")
    (checkpoint,) = trained.glob("checkpoint-*.safetensors")
    model = read_checkpoint(checkpoint).model()
    tuned = model.encoders[0].weights()
    away = [float(np.abs(tuned[name] - encoder.weights[name]).max()) for name in encoder.weights]
    assert 0 < max(away) < 1e-3
    assert str(whole) not in (trained / "training.json").read_text()


def test_the_classes_are_clusters_where_attributes_are_hidden(whole: Path) -> None:
    (classes,) = objects(whole, "pseudo_labels")
    table = ClassTable.read(classes / "classes.json")
    valve = [name for name in table.classes if "/valve/" in f"{name}/"]
    assert len(valve) == 3
    assert all("pseudo=" in name for name in valve)
    assert not table.attribute_free_classes
    assert all("pseudo=" not in name for name in table.classes if "/fan/" in name)
    assert sum(table.counts) == 26


def test_killed_in_pretraining_it_ends_with_the_same_bytes(
    plant: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harken.training.pretrain import loop

    save = loop._Pretraining._save

    def dies(self: loop._Pretraining, step: int) -> None:
        save(self, step)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Pretraining, "_save", dies)
    recipe = str(whole / "recipe.yaml")
    with pytest.raises(KeyboardInterrupt):
        run(plant, tmp_path, recipe, profile="full")
    monkeypatch.undo()
    run(plant, tmp_path, recipe, profile="full")
    for folder in ("objects", "runs"):
        assert contents(tmp_path / folder) == contents(whole / folder)


def test_folders_of_sounds_years_and_a_second_stage(plant: Path, tmp_path: Path) -> None:
    (tmp_path / "sounds" / "deep").mkdir(parents=True)
    for number in range(6):
        sf.write(tmp_path / "sounds" / "deep" / f"{number}.flac", hum(number, 0.3 + 0.2 * number), 16_000)
    first = {**RECIPE["stages"]["pretrain"], "years": [], "folders": [str(tmp_path / "sounds")]}
    stages = {
        "first": first,
        "second": {**RECIPE["stages"]["pretrain"], "from": "first", "weights": "pretrained", "config": {}},
        "frozen": {**RECIPE["stages"]["frozen"], "from": "second"},
        "nearest": {"use": "detect", "from": "frozen", "detector": "knn"},
    }
    done, _ = run(
        plant, tmp_path / "w", written(tmp_path, {"stages": stages, "systems": {"frozen": "nearest"}}), profile="full"
    )
    assert not done.failures
    made = {
        len(json.loads((folder / "clips.json").read_text())["clips"]): folder
        for folder in objects(tmp_path / "w", "pretrain")
    }
    assert sorted(made) == [6, 28]
    first_weights, second_weights = (load_file(made[count] / "encoder.safetensors") for count in (6, 28))
    away = max(float(np.abs(first_weights[name] - second_weights[name]).max()) for name in first_weights)
    assert 0 < away < 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": {**RECIPE["stages"]["frozen"], "from": []}}, "go together"),
        ({"frozen": {**RECIPE["stages"]["frozen"], "encoder": "fisher"}}, "one pretrain stage of that encoder"),
        ({"pretrain": {**RECIPE["stages"]["pretrain"], "folders": ["nowhere"]}}, "not a folder"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said(plant: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    stages = {name: RECIPE["stages"][name] for name in ("pretrain", "frozen", "frozen_nearest")} | changes
    recipe = written(tmp_path, {"stages": stages, "systems": {"frozen": "frozen_nearest"}})
    try:
        done, _ = run(plant, tmp_path / "w", recipe, profile="full")
    except HarkenError as error:
        assert message in str(error)  # noqa: PT017
    else:
        assert any(message in str(failure) for failure in done.failures)


def test_it_is_planned_without_data(tmp_path: Path) -> None:
    stages = json.loads(json.dumps(RECIPE["stages"]))
    stages["pretrain"] |= {"years": [2025], "steps": 10_000, "batch": 16}
    plan = make_plan(load_recipe(written(tmp_path, {"stages": stages})), None, None)
    rows = {row["stage"]: row for row in plan["stages"]}
    assert not plan["total"]["unknown"]
    assert rows["pretrain"]["steps"] == 10_000
    assert rows["pretrain"]["clips"] > 15_000
    assert rows["pretrain"]["seconds"] > 0
    # The sizes that are trained are those that are pre-trained.
    assert rows["train"]["network_parameters"] < 500_000
    assert rows["frozen"]["network_parameters"] < 100_000


@pytest.mark.parametrize("encoder", ["eat", "fisher"])
def test_blocks_are_counted_as_if_all_were_computed(encoder: str) -> None:
    spec = PretrainingSpec(batch=2, clones=2, seconds=1.0)
    config = {"width": 48, "depth": 6, "heads": 4}
    short = counting.count_pretraining(encoder, config, spec)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(counting, "_alike", lambda row: False)
    monkey.setattr(counting, "_COUNTED", {})
    try:
        exact = counting.count_pretraining(encoder, config, spec)
    finally:
        monkey.undo()
    assert short.batch.flops == pytest.approx(exact.batch.flops)
    assert short.live == pytest.approx(exact.live, rel=0.05)
    assert (short.parameters, short.trainable) == (exact.parameters, exact.trainable)
    more = counting.count_pretraining(encoder, config, spec.model_copy(update={"clones": 4}))
    assert 1.3 * exact.batch.flops < more.batch.flops < 2 * exact.batch.flops


def test_clusters_of_clips_and_of_what_is_made_of_them() -> None:
    blank = Clip("", Path("x.wav"), "dcase2025", 2025, "train", "valve", "00", "source", "normal")
    rng = np.random.default_rng(0)
    clips, embeddings = [], {}
    for number in range(30):
        clip = Clip(
            **{**blank.__dict__, "clip_id": f"v{number:02d}", "domain": "target" if number % 5 == 0 else "source"}
        )
        clips.append(clip)
        centre = np.eye(8)[number % 3]
        embeddings[clip.clip_id] = centre + 0.05 * rng.normal(size=8)
    known = Clip(**{**blank.__dict__, "clip_id": "f0", "machine": "fan", "attributes": {"spd": "1"}})
    made = derive(clips[1], "m1", Path("m.wav"), "generated")
    clips += [known, made, Clip(**{**blank.__dict__, "clip_id": "lost"})]
    table = with_pseudo_attributes(label_clips(clips, "ustc"), clips, embeddings)
    names = {clip_id: table.classes[index] for clip_id, index in table.class_of.items() if index >= 0}
    # Three clusters of the machine, whatever the domain, which the policy keeps apart.
    assert len(table) == 1 + 2 * 3
    assert names["v01"] == names["v04"] == names["m1"] != names["v02"]
    assert names["v00"].split("/pseudo")[0] != names["v03"].split("/pseudo")[0]
    assert names["v00"].split("pseudo=")[1] == names["v03"].split("pseudo=")[1]
    assert names["f0"] == "2025/fan/source/spd=1"
    assert "lost" not in names
    assert not table.attribute_free_classes
    # One cluster is no attribute.
    alone = with_pseudo_attributes(label_clips(clips, "ustc"), clips, embeddings, clusters=1)
    assert len(alone) == 3
    assert len(alone.attribute_free_classes) == 2


def test_nwpu_pretrains_its_eat_where_asked(tmp_path: Path) -> None:
    assert "pretrain" not in load_recipe("nwpu_fusion").stages
    for profile, size in (("full", "large"), ("tiny", "tiny")):
        recipe = load_recipe("nwpu_fusion", profile=profile, changes={"eat_weights": "pretrained"})
        assert recipe.stages["pretrain"].parameters["size"] == size
        for name, branch in (("feat", 0), ("leat", 0), ("dual", 1)):
            assert recipe.stages[name].inputs == ("labels", "pretrain")
            assert recipe.stages[name].parameters["model"]["branches"][branch]["weights"] == "pretrained"
    plan = make_plan(load_recipe("nwpu_fusion", changes={"eat_weights": "pretrained"}), None, None)
    assert not plan["total"]["unknown"]
    rows = {row["stage"]: row for row in plan["stages"]}
    # Student and teacher of 302.6 M parameters each, and the decoder.
    assert rows["pretrain"]["learned_parameters"] == 302_575_616 + 3 * (1024 * 64 * 25 + 1024) + 1024 * 1025
    assert rows["feat"]["network_parameters"] > 302_000_000
    assert any("audioset" in line for line in plan["missing"])

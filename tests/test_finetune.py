"""Training as a recipe: one network for all machines, its checkpoints scored together, nothing done twice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from harken.bench.graph import make_common
from harken.bench.plan import make_plan
from harken.bench.recipe import list_recipes, load_recipe, recipe_text
from harken.bench.run import load_clips
from harken.bench.workspace import Workspace
from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.data.labels import ClassTable
from harken.ensemble.runs import members_of_run
from harken.evaluation.evaluate import evaluate
from harken.training.checkpoints import read_checkpoint
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.weights.catalog import catalog
from test_pipeline import contents, run

SHORT = {
    "stages.train.training.steps": 6,
    "stages.train.training.batch": 4,
    "stages.train.training.evaluate_every": 2,
    "stages.train.save_every": 2,
}


def objects(workspace: Path, kind: str) -> list[Path]:
    """Folders of what stages of a kind made."""
    return [
        file.parent
        for file in sorted((workspace / "objects").rglob("stage.json"))
        if json.loads(file.read_text())["kind"] == kind
    ]


@pytest.fixture
def workspace(plant: Path, once: Callable[[str, Callable[[Path], object]], Path], tmp_path: Path) -> Path:
    """A workspace of its own in which `finetune` of Dasheng, as `SHORT` says, has been run."""
    whole = once("finetune", lambda folder: run(plant, folder, "finetune", changes={**SHORT, "encoder": "dasheng"}))
    return copytree(whole, tmp_path / "w")


@pytest.mark.parametrize("encoder", ["beats", "eat", "fisher", "dasheng", "efficientat", "dual_branch"])
def test_every_encoder_to_an_official_score(encoder: str, plant: Path, tmp_path: Path) -> None:
    done, started = run(plant, tmp_path, "finetune", changes={**SHORT, "encoder": encoder})
    assert not done.failures
    assert not done.quarantined
    assert [name for name in started if name.startswith(("labels/", "train/"))] == [
        "labels/all machines",
        "train/all machines/seed 0",
    ]
    assert sum(name.startswith("embed_") for name in started) == 6
    for one in done.systems:
        assert one.result is not None
        assert set(one.scores.machine) == {"fan", "valve"}
        (result,) = evaluate(one.folder).results
        assert result.official_score == one.result.official_score
    assert [one.system for one in done.systems] == ["best", "top_3"]
    assert run(plant, tmp_path, "finetune", changes={**SHORT, "encoder": encoder})[1] == []


def test_what_a_training_leaves(plant: Path, workspace: Path) -> None:
    done, _ = run(plant, workspace, "finetune", changes={**SHORT, "encoder": "dasheng"})
    (labels,) = objects(workspace, "labels")
    table = ClassTable.read(labels / "classes.json")
    assert "attribute-free" in (labels / "classes.txt").read_text()
    # The attributes of valve are hidden: one class, which is marked.
    assert [name for name, free in zip(table.classes, table.attribute_free, strict=True) if free] == [
        name for name in table.classes if "/valve/" in f"{name}/"
    ]
    (trained,) = objects(workspace, "train")
    history = json.loads((trained / "history.json").read_text())
    assert [row["step"] for row in history["evaluations"]] == [2, 4, 6]
    assert sorted(history["checkpoints"]) == sorted(file.name for file in trained.glob("checkpoint-*.safetensors"))
    assert not history["tuned_on_test"]
    assert json.loads((trained / "training.json").read_text())["training"]["settings"]["steps"] == 6
    # The mean of three, each in units of its scores of training clips: between the least and the largest of them.
    best, together = done.systems
    assert np.corrcoef(best.scores.test.score_N, together.scores.test.score_N)[0, 1] > 0.5


def test_a_training_that_was_killed_goes_on(
    plant: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harken.training import loop

    changes = {**SHORT, "encoder": "dasheng"}
    save = loop._Training._save
    steps: list[int] = []

    def dies(self: loop._Training, step: int) -> None:
        save(self, step)
        steps.append(step)
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Training, "_save", dies)
    with pytest.raises(KeyboardInterrupt):
        run(plant, tmp_path / "killed", "finetune", changes=changes)
    run(plant, tmp_path / "killed", "finetune", changes=changes)
    assert steps == [2, 4, 6]
    for part in ("objects", "runs"):
        assert contents(tmp_path / "killed" / part) == contents(workspace / part)


def test_only_a_stage_that_says_so_sees_labels_of_test_clips(plant: Path, tmp_path: Path) -> None:
    common = make_common(load_clips(plant)[0])
    assert {clip.split for clip in common["none"].clips} == {"train", "supplemental"}
    assert {clip.condition for clip in common["labelled"].clips if clip.split == "test"} == {"normal", "anomaly"}
    changes = {**SHORT, "encoder": "dasheng", "stages.train.training.choose": "dev"}
    done, _ = run(plant, tmp_path, "finetune", changes=changes)
    assert [one.label for one in done.systems] == ["best (tuned on test), seed 0", "top_3 (tuned on test), seed 0"]
    told = done.as_json()["sets"][done.units[0].set]
    assert [(system, list(entry["marks"])) for system, entry in sorted(told.items())] == [
        ("best", ["tuned on test"]), ("top_3", ["tuned on test"]),
    ]  # fmt: skip
    assert "best (tuned on test)" in (done.folder / "report.html").read_text()
    (trained,) = objects(tmp_path, "train")
    history = json.loads((trained / "history.json").read_text())
    scores = {row["step"]: row["dev"]["official_score"] for row in history["evaluations"]}
    assert history["tuned_on_test"]
    assert int(history["checkpoints"][0][-20:-12]) == max(scores, key=lambda step: (scores[step], step))
    # What was chosen by it has that score.
    assert done.systems[0].result is not None
    assert done.systems[0].result.official_score == pytest.approx(max(scores.values()), abs=0.02)


def test_checkpoints_are_chosen_by_the_rule_of_each_year(plant: Path, tmp_path: Path) -> None:
    """2020 knows no domains; a section without anomalies is not looked at."""
    old = tmp_path / "tree" / "dcase2020" / "fan"
    for split in ("train", "test"):
        (old / split).mkdir(parents=True)
        for number, clip in enumerate(sorted((plant / "fan" / split).iterdir())):
            condition = "anomaly" if "_anomaly_" in clip.name else "normal"
            (old / split / f"{condition}_id_00_{number:08d}.wav").symlink_to(clip)
    for number, clip in enumerate(sorted((plant / "fan" / "test").glob("*normal*"))[:3]):
        (old / "test" / f"normal_id_02_{number:08d}.wav").symlink_to(clip)
    (tmp_path / "tree" / "dcase2025").mkdir()
    (tmp_path / "tree" / "dcase2025" / "valve").symlink_to(plant / "valve")
    changes = {**SHORT, "encoder": "dasheng", "stages.train.training.choose": "dev"}
    done, _ = run(tmp_path / "tree", tmp_path / "w", "finetune", changes=changes)
    assert not done.failures
    (trained,) = objects(tmp_path / "w", "train")
    history = json.loads((trained / "history.json").read_text())
    best = next(row for row in history["evaluations"] if f"{row['step']:08d}" in history["checkpoints"][0])
    scores = [one.result.official_score for one in done.systems if one.system == "best" and one.result is not None]
    assert len(scores) == 2
    assert best["dev"]["official_score"] == pytest.approx(np.mean(scores), abs=0.02)


def test_bad_recordings_are_set_aside(plant: Path, tmp_path: Path) -> None:
    copytree(plant, tmp_path / "plant")
    next((tmp_path / "plant" / "fan" / "train").iterdir()).write_bytes(b"no sound")
    done, _ = run(tmp_path / "plant", tmp_path / "w", "finetune", changes={**SHORT, "encoder": "dasheng"})
    assert len(done.quarantined) == 1
    assert all(one.result is not None for one in done.systems)


def test_plan_and_what_is_missing(plant: Path, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(load_recipe("finetune"), plant, None)
    assert {row["stage"]: row["tasks"] for row in plan["stages"]} == {
        "labels": 1, "train": 1, "embed_1": 2, "embed_2": 2, "embed_3": 2, "nearest_1": 2, "nearest_2": 2,
        "nearest_3": 2, "top_3": 2,
    }  # fmt: skip
    assert any("beats-iter3-plus-as2m" in text for text in plan["missing"])
    chosen = load_recipe("finetune", profile="tiny", changes={**SHORT, "encoder": "dasheng"})
    there = make_plan(chosen, plant, workspace)
    assert all(row["cached"] == row["tasks"] for row in there["stages"])
    assert Workspace(workspace).root.is_dir()
    with pytest.raises(HarkenError, match="learning_rat"):
        load_recipe("finetune", changes={"stages.train.training.learning_rat": 1})
    with pytest.raises(HarkenError, match=r"stage train: embed_1 .* is not an input of a train stage. It reads labels"):
        load_recipe("finetune", changes={"stages.train.from": "embed_1"})
    app(args=["plan", "finetune", "--data", str(plant)], standalone_mode=False)
    assert "labels" in capsys.readouterr().out


def test_checkpoints_that_are_not_there(plant: Path, tmp_path: Path) -> None:
    changes = {**SHORT, "encoder": "dasheng", "stages.train.training.evaluate_every": 6}
    done, _ = run(plant, tmp_path, "finetune", changes=changes)
    assert [one.system for one in done.systems] == ["best"]
    assert "the training kept 1" in str(done.failures[0].error)


def test_pooled_layers_and_networks_side_by_side(plant: Path, tmp_path: Path) -> None:
    """NWPU's two fusions: all blocks of one network; two networks, each trained on its own."""
    text = recipe_text("finetune")
    data = yaml.safe_load(text)
    stages = data["stages"]
    for name, encoder in (("one", "dasheng"), ("two", "eat")):
        branches = [{"encoder": encoder, "size": "tiny", "head": {"dims": [16]}, "adapter": {"rank": 4}}]
        stages[f"train_{name}"] = {**stages["train"], "model": {"branches": branches}}
        stages[f"last_{name}"] = {"use": "embed_trained", "from": f"train_{name}"}
    for name in [name for name in stages if name.startswith(("embed_", "nearest_", "top_"))] + ["train"]:
        del stages[name]
    stages["layers"] = {"use": "embed_trained", "from": "train_one", "layers": "all", "pooling": "mean"}
    stages["both"] = {"use": "concatenate", "from": ["last_one", "last_two"], "weights": [1.0, 0.5]}
    for name in ("layers", "both"):
        smote = {"oversample": "smote", "bank": "target"}
        stages[f"nearest_{name}"] = {"use": "detect", "from": name, "detector": "knn", "parameters": smote}
    data |= {"systems": {"layers": "nearest_layers", "both": "nearest_both"}, "when": {}}
    data["profiles"]["tiny"] = {
        f"stages.train_{name}.{key.removeprefix('stages.train.')}": value for name in ("one", "two") for key, value in
        {**data["profiles"]["tiny"], **SHORT}.items() if key.startswith("stages.train.")
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    done, _ = run(plant, tmp_path / "w", str(tmp_path / "mine.yaml"))
    assert not done.failures
    assert [one.system for one in done.systems] == ["both", "layers"]
    shapes = {}
    for folder in objects(tmp_path / "w", "embed_trained") + objects(tmp_path / "w", "concatenate"):
        about = json.loads((folder / "stage.json").read_text())
        vectors = load_file(folder / "embeddings.safetensors")["embeddings"]
        shapes[about["stage"]] = vectors.shape[1]
        lengths = np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(lengths, np.sqrt(1.25) if about["stage"] == "both" else 1.0, rtol=1e-5)
    assert shapes["last_one"] == shapes["last_two"] == 16
    assert shapes["both"] == 32
    plain = ModelSpec.model_validate({"branches": [{"encoder": "dasheng", "size": "tiny"}]})
    config = build_model(plain).encoders[0].config()
    assert shapes["layers"] == config["depth"] * config["width"]
    data["stages"]["layers"]["layers"] = "block_77"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    done, _ = run(plant, tmp_path / "w", str(tmp_path / "mine.yaml"))
    assert "no layer block_77" in str(done.failures[0].error)


def test_ensembles_of_a_recipe(plant: Path, tmp_path: Path) -> None:
    """Seeds first, then systems; equal to the score files that are written, and to `harken ensemble score`."""
    data = yaml.safe_load(recipe_text("spectral_knn"))
    data["seeds"] = [0]
    data["stages"]["other"] = {"use": "detect", "from": "embed", "detector": "mahalanobis"}
    data["systems"] = {"one": "nearest", "two": "other"}
    data["ensembles"] = {
        "even": {"members": {"one": 1.0, "two": 1.0}},
        "chosen": {"members": {"one": 0.3, "two": 0.7}, "tuned": "the authors' development set"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    done, _ = run(plant, tmp_path / "w", str(tmp_path / "mine.yaml"))
    assert [one.label for one in done.systems] == ["one", "two", "chosen (tuned on test)", "even"]
    assert not done.notes
    for one in done.systems:
        (result,) = evaluate(one.folder).results
        assert one.result is not None
        assert result.official_score == one.result.official_score
        assert set(one.scores.test.decision_N.tolist()) <= {0, 1}
    told = done.as_json()["sets"][done.units[0].set]
    assert list(told["chosen"]["marks"]) == ["tuned on test"]
    assert "marks" not in told["even"]
    scores = {one.system: {row.clip_id: row.score for row in one.scores.rows()} for one in done.systems}
    held_out = {one.system: one.scores.held_out(("fan", "00")).score_N for one in done.systems}
    for clip_id, value in scores["even"].items():
        if clip_id.startswith("fan"):
            expected = 0.0
            for system in ("one", "two"):
                known = held_out[system]
                expected += 0.5 * (scores[system][clip_id] - known.mean()) / known.std()
            assert value == pytest.approx(expected)
    args = [
        "ensemble",
        "score",
        str(done.folder / "ensembles" / "even.yaml"),
        str(done.folder),
        "-o",
        str(tmp_path / "o"),
    ]
    assert app(args=args, standalone_mode=False) in (None, 0)
    (again,) = evaluate(tmp_path / "o").results
    assert again.official_score == told["even"]["official_score"]
    assert [member.name for member in members_of_run(done.folder, None)] == ["spectral_knn/one", "spectral_knn/two"]
    for wrong, message in (
        ({"even": {"members": {"tow": 1.0}}}, "Did you mean two"),
        ({"one": {"members": {"two": 1.0}}}, "a system and an ensemble"),
        ({"even": {"members": {}}}, "at least 1 item"),
    ):
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({**data, "ensembles": wrong}))
        with pytest.raises(HarkenError, match=message):
            load_recipe(str(tmp_path / "wrong.yaml"))


def test_nwpu_fusion(plant: Path, tmp_path: Path) -> None:
    """Six systems, their four published mixtures; what is fitted to test labels by its authors is named so."""
    names = ("fbeats", "lbeats", "feat", "leat", "dual")
    changes = {f"stages.{name}.training.epochs": 1 for name in names}
    changes |= {f"stages.{name}.training.seconds": 0.5 for name in names}
    changes |= {"ensembles.tuned.search.trials": 10}
    done, started = run(plant, tmp_path, "nwpu_fusion", changes=changes)
    assert not done.failures
    assert not done.notes
    shown = [one.label for one in done.systems]
    assert shown[:6] == [f"{name}, seed 0" for name in (*names, "fusion")]
    assert shown[6:] == [f"system_{number} (tuned on test)" for number in (1, 2, 3, 4)] + [
        "uniform",
        "tuned (tuned on test)",
    ]
    assert all(one.result is not None for one in done.systems)
    assert sum("/all machines" in name for name in started) == 6
    classes = ClassTable.read(objects(tmp_path, "labels")[0] / "classes.json").classes
    assert sum(name.endswith(("/clean", "/noise")) for name in classes) == 2
    assert run(plant, tmp_path, "nwpu_fusion", changes=changes)[1] == []


@pytest.mark.parametrize(
    ("recipe", "networks", "systems"),
    [
        ("thuee_system1", ("beats", "eat", "fisher"), ["system_1", "uniform"]),
        ("unisound", ("cnn", "beats", "dasheng"), ["uniform", "tuned"]),
    ],
)
def test_systems_of_reports(
    recipe: str, networks: tuple[str, ...], systems: list[str], plant: Path, tmp_path: Path
) -> None:
    length = {"thuee_system1": {"steps": 3}, "unisound": {"epochs": 3}}[recipe]
    changes = {f"stages.{name}.training.{key}": value for name in networks for key, value in length.items()}
    changes[f"ensembles.{'tuned' if 'tuned' in systems else 'system_1'}.search.trials"] = 10
    done, started = run(plant, tmp_path, recipe, changes=changes)
    assert not done.failures
    assert not done.notes
    assert list(dict.fromkeys(one.system for one in done.systems)) == [*networks, *systems]
    assert all(one.result is not None for one in done.systems)
    seeds = load_recipe(recipe, profile="tiny").seeds
    assert sum("/all machines" in name for name in started) == 1 + 3 * len(seeds)
    (labels,) = objects(tmp_path, "labels")
    assert (ClassTable.read(labels / "classes.json").mixture_of is not None) == (recipe == "unisound")
    full = make_plan(load_recipe(recipe), None, None)
    assert sum("harken weights fetch" in text for text in full["missing"]) == 3 - (recipe == "unisound")


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_name_weights_that_there_are(name: str) -> None:
    """Complete plans without data and without weights. Full ones of unisound and THUEE's systems, which have the
    networks of the first, are made above."""
    known = {entry.name for entry in catalog()} | {"pretrained"}
    for profile in ("full", "tiny"):
        recipe = load_recipe(name, profile=profile)
        named = set(re.findall(r'"weights": "([^"]+)"', json.dumps(recipe.model_dump(mode="json"))))
        assert named <= known
        if profile == "tiny" or not name.startswith(("thuee", "unisound")):
            assert make_plan(recipe, None, None)["stages"]
    for encoder in ("beats", "eat", "fisher", "dasheng", "efficientat"):
        if name == "finetune":
            changed = load_recipe(name, changes={"encoder": encoder})
            assert set(re.findall(r'"weights": "([^"]+)"', json.dumps(changed.model_dump(mode="json")))) <= known


def test_a_training_begins_with_the_network_of_another(plant: Path, tmp_path: Path) -> None:
    """Encoder weights are taken over, to the last bit where nothing learns; other heads begin anew."""
    data = yaml.safe_load(
        load_recipe("finetune", profile="tiny", changes={**SHORT, "encoder": "efficientat"}).as_yaml()
    )
    stages = data["stages"]
    frozen = json.loads(json.dumps(stages["train"]))
    frozen["model"]["branches"][0] |= {"frozen": True, "head": {"kind": "mean", "dims": [7]}}
    stages["again"] = {**frozen, "from": ["labels", "train"], "checkpoint": 1}
    stages["embed_1"]["from"] = "again"
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    done, _ = run(plant, tmp_path / "w", str(tmp_path / "r.yaml"), profile="full")
    assert not done.failures
    made = objects(tmp_path / "w", "train")
    folders = {json.loads((folder / "stage.json").read_text())["stage"]: folder for folder in made}
    files = {
        name: [folder / file for file in json.loads((folder / "history.json").read_text())["checkpoints"]]
        for name, folder in folders.items()
    }
    first, other = load_file(files["train"][1]), load_file(files["train"][0])
    again = load_file(files["again"][0])
    encoder = [name for name in first if ".net." in name]
    assert encoder
    for name in encoder:
        np.testing.assert_array_equal(again[name], first[name])
    assert any(not np.array_equal(again[name], other[name]) for name in encoder)
    heads = {name for name in again if ".heads." in name}
    assert any(name not in first or first[name].shape != again[name].shape for name in heads)
    # The checkpoint is complete: read again, it gives the network that was trained.
    network = read_checkpoint(files["again"][0]).model()
    weights = network.encoders[0].weights()
    source = read_checkpoint(files["train"][1]).model().encoders[0].weights()
    for name, array in source.items():
        np.testing.assert_array_equal(weights[name], array)
    stages["again"]["checkpoint"] = 9
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(HarkenError, match="there is no checkpoint 9: the training kept"):
        run(plant, tmp_path / "w", str(tmp_path / "r.yaml"), profile="full")

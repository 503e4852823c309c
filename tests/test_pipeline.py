"""Recipes: checked to the last key, run once, resumed to the same bytes, and honest about what went wrong."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import soundfile as sf
import yaml

from harken.bench.executor import Event
from harken.bench.graph import make_tasks, make_units
from harken.bench.plan import make_plan
from harken.bench.recipe import list_recipes, load_recipe, recipe_text
from harken.bench.result import Run
from harken.bench.run import load_clips, run_recipe
from harken.bench.stages import list_stages, stage_class
from harken.bench.workspace import Workspace
from harken.cli.console import key_values
from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.data.truth import read_truth
from harken.evaluation.evaluate import evaluate
from ready_process import command


def run(plant: Path, workspace: Path, name: str = "spectral_knn", **options: object) -> tuple[Run, list[str]]:
    """The run, and the tasks that were not found in the workspace."""
    changes = options.pop("changes", None)
    profile = str(options.pop("profile", "tiny"))
    started: list[str] = []

    def watch(event: Event) -> None:
        if event.state == "started":
            started.append(event.task.name)

    recipe = load_recipe(name, profile=profile, changes=changes)  # type: ignore[arg-type]
    options.setdefault("workers", 1)
    return run_recipe(recipe, plant, Workspace(workspace), watch=watch, **options), started  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- recipes


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_has_two_profiles_and_survives_being_written(name: str, tmp_path: Path) -> None:
    for profile in ("tiny", "full"):
        recipe = load_recipe(name, profile=profile)
        assert recipe.name == name
        file = tmp_path / f"{profile}.yaml"
        file.write_text(recipe.as_yaml())
        assert load_recipe(str(file)) == recipe


def test_every_kind_of_stage_is_there() -> None:
    for name in list_stages():
        assert stage_class(name).__doc__
    with pytest.raises(HarkenError, match="Did you mean embed"):
        stage_class("embd")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.embed.encodr": "spectral"}, "unknown key stages.embed.encodr.*Did you mean encoder"),
        ({"stages.embd.encoder": "spectral"}, "no 'stages.embd' to set.*Did you mean embed"),
        ({"sedes": [1]}, "unknown key sedes.*Did you mean seeds"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"seeds": ["x"]}, "seeds.0"),
        ({"stages.nearest.model": "clip"}, "stages.nearest.model"),
        ({"stages.nearest.from": "embeddings"}, "reads 'embeddings', which is not there"),
        ({"stages.nearest.from": []}, "stage nearest: a detect stage needs embeddings, it reads nothing"),
        ({"systems": {"x": "embed"}}, "a stage without scores"),
        ({"systems": {"x": "nothing"}}, "takes its scores from 'nothing'"),
        ({"systems": {}}, "has no system"),
        ({"stages.nearest.use": "detekt"}, "Did you mean detect"),
        ({"name.x": 1}, "holds no further keys"),
    ],
)
def test_a_wrong_recipe_says_where_and_what_was_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HarkenError, match=message):
        load_recipe("spectral_knn", changes=changes)


def test_unknown_recipes_and_profiles(tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match="Did you mean spectral_knn"):
        load_recipe("spectral_kn")
    with pytest.raises(HarkenError, match="Did you mean tiny"):
        load_recipe("spectral_knn", profile="tny")
    (tmp_path / "r.yaml").write_text("stages: [")
    with pytest.raises(HarkenError, match="is not valid YAML"):
        load_recipe(str(tmp_path / "r.yaml"))
    (tmp_path / "r.yaml").write_text("name: x")
    with pytest.raises(HarkenError, match="it has no stages"):
        load_recipe(str(tmp_path / "r.yaml"))


def test_stages_that_read_each_other(plant: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(load_recipe("baseline_ae").as_yaml())
    # Kinds are checked first, so a circle needs stages of fitting kinds.
    units = make_units(load_clips(plant)[0])
    recipe = load_recipe("baseline_ae")
    circular = recipe.model_copy(
        update={
            "stages": {
                name: entry.model_copy(update={"inputs": ("mse",)}) if name == "frames" else entry
                for name, entry in recipe.stages.items()
            }
        }
    )
    with pytest.raises(HarkenError, match="in a circle"):
        make_tasks(circular, units)
    assert data["stages"]["mse"]["from"] == ["autoencoder", "frames"]


def test_parameters_and_what_follows_from_them(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        """
name: r
title: R
parameters: {encoder: spectral}
when:
  encoder:
    spectral: {stages.embed.pooling: mean}
    efficientat: {stages.embed.pooling: mean+std}
stages:
  embed: {use: embed, encoder: $encoder}
  scores: {use: detect, from: embed}
systems: {r: scores}
"""
    )
    embed = load_recipe(str(file)).stages["embed"].parameters
    assert (embed["encoder"], embed["pooling"]) == ("spectral", "mean")
    embed = load_recipe(str(file), changes={"encoder": "efficientat"}).stages["embed"].parameters
    assert (embed["encoder"], embed["pooling"]) == ("efficientat", "mean+std")
    changed = load_recipe(str(file), changes={"encoder": "efficientat", "stages.embed.pooling": "max"})
    assert changed.stages["embed"].parameters["pooling"] == "max"
    with pytest.raises(HarkenError, match="Did you mean encoder"):
        load_recipe(str(file), changes={"stages.embed.encoder": "$encodr"})


# --- runs


def test_a_stage_runs_once(plant: Path, tmp_path: Path) -> None:
    plant = copytree(plant, tmp_path / "plant")
    first, started = run(plant, tmp_path / "w")
    assert len(started) == 4
    before = contents(first.folder)
    again, nothing = run(plant, tmp_path / "w")
    assert nothing == []
    assert contents(again.folder) == before
    # Another detector: the embeddings are there.
    other, started = run(plant, tmp_path / "w", changes={"stages.nearest.detector": "mahalanobis"})
    assert [name.split("/")[0] for name in started] == ["nearest", "nearest"]
    assert other.folder != first.folder
    # One recording that changes is heard again; its machine is scored again, the other is not.
    clip = next((plant / "fan" / "train").glob("*_0000_*"))
    sound, rate = sf.read(clip)
    sf.write(clip, 0.5 * sound[::-1], rate, subtype="PCM_16")
    _, started = run(plant, tmp_path / "w")
    assert {name.rsplit("/", 1)[1] for name in started} == {"fan"}


def test_the_number_of_processes_changes_nothing(plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = run(plant, tmp_path / "one", workers=1)
    # Processes for as little work as this, too.
    monkeypatch.setattr("harken.bench.local._START_S", 0.0)
    two, _ = run(plant, tmp_path / "two", workers=2)
    assert contents(one.folder) == contents(two.folder)
    assert contents(tmp_path / "one" / "objects") == contents(tmp_path / "two" / "objects")


def test_a_damaged_object_is_made_again(plant: Path, tmp_path: Path) -> None:
    first, _ = run(plant, tmp_path)
    before = contents(first.folder)
    (damaged, *_) = sorted((tmp_path / "objects").rglob("embeddings.safetensors"))
    data = bytearray(damaged.read_bytes())
    data[-5] ^= 1
    damaged.write_bytes(bytes(data))
    again, started = run(plant, tmp_path)
    assert [name.split("/")[0] for name in started] == ["embed"]
    assert contents(again.folder) == before


def test_scores_in_files_give_the_same_official_score(plant: Path, tmp_path: Path) -> None:
    done, _ = run(plant, tmp_path)
    (system,) = done.systems
    assert system.result is not None
    (result,) = evaluate(system.folder).results
    assert result.official_score == system.result.official_score
    assert result.numbers == system.result.numbers
    assert result.extra == system.result.extra
    told = json.loads((done.folder / "results.json").read_text())
    name = done.units[0].set
    assert told["sets"][name]["spectral_knn"]["official_score"] == result.official_score
    page = (done.folder / "report.html").read_text()
    assert f"{result.summary['auc_source']:.4f}" in page
    assert "their numbers are uncertain" in page


def test_the_baseline_end_to_end(plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seeds, two systems of one training; report, submission, and the zip evaluated to the same score."""
    done, started = run(plant, tmp_path, "baseline_ae", changes={"seeds": [1, 2], "stages.autoencoder.epochs": 1})
    assert sum(name.startswith("autoencoder/") for name in started) == 4
    assert sum(name.startswith("frames/") for name in started) == 2
    assert [(one.system, one.seed) for one in done.systems] == [(s, k) for s in ("mse", "mahalanobis") for k in (1, 2)]
    told = done.as_json()["sets"][done.units[0].set]["mse"]
    assert told["official_score"] == np.mean([told["seeds"][seed]["official_score"] for seed in ("1", "2")])
    (tmp_path / "meta.yaml").write_text(
        "submission: {name: Test, abbreviation: T, authors: [{lastname: A, firstname: B, affiliation: {institute: I}}]}"
    )
    arguments = ["submit", str(done.folder), "-o", str(tmp_path / "s.zip"), "--label", "Doe_EX_task2"]
    app(args=[*arguments, "--meta", str(tmp_path / "meta.yaml"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["systems"] == ["mse", "mahalanobis"]
    in_zip = {result.system: result for result in evaluate(tmp_path / "s.zip").results}
    for number, system in enumerate(("mse", "mahalanobis"), start=1):
        (mine,) = [one for one in done.systems if (one.system, one.seed) == (system, 1)]
        assert mine.result is not None
        assert in_zip[f"task2/Doe_EX_task2_{number}"].official_score == mine.result.official_score


@pytest.mark.parametrize("encoder", ["beats", "eat", "fisher", "dasheng", "efficientat"])
def test_training_free_with_each_network(encoder: str, plant: Path, tmp_path: Path) -> None:
    """Small networks with random weights, end to end to a score; two layers, or class tokens where there are some."""
    done, _ = run(plant, tmp_path, "training_free", changes={"encoder": encoder}, machines=["fan"])
    assert done.systems[0].result is not None
    assert len(set(done.systems[0].scores.test.score_N.tolist())) == 12
    assert not done.quarantined


def test_evaluation_clips_are_scored_and_labels_only_counted(plant: Path, tmp_path: Path) -> None:
    """A tree of an evaluation set: no labels in names, official numbers only with --truth, the same scores."""
    raw = tmp_path / "dcase2025t2" / "eval_data" / "raw" / "ToyPet"
    truth = tmp_path / "truth"
    (raw / "test").mkdir(parents=True)
    (raw / "train").symlink_to(plant / "valve" / "train")
    rows: dict[str, list[str]] = {"data": [], "domain": []}
    for number, clip in enumerate(sorted((plant / "valve" / "test").iterdir())):
        (raw / "test" / f"section_00_{number:04d}.wav").symlink_to(clip)
        rows["data"].append(f"section_00_{number:04d}.wav,{int('anomaly' in clip.name)}")
        rows["domain"].append(f"section_00_{number:04d}.wav,{int('target' in clip.name)}")
    for what, lines in rows.items():
        (truth / f"ground_truth_{what}").mkdir(parents=True)
        (truth / f"ground_truth_{what}" / "ground_truth_ToyPet_section_00_test.csv").write_text("\n".join(lines))
    blind, _ = run(tmp_path / "dcase2025t2", tmp_path / "w")
    assert blind.systems[0].set == "dcase2025 eval"
    assert blind.systems[0].result is None
    assert "labels of its test clips are not known" in (blind.folder / "report.html").read_text()
    seen, started = run(tmp_path / "dcase2025t2", tmp_path / "w", truth=read_truth(truth))
    assert started == []
    assert seen.systems[0].scores == blind.systems[0].scores
    assert seen.systems[0].result is not None
    (result,) = evaluate(seen.systems[0].folder, truth).results
    assert result.official_score == seen.systems[0].result.official_score


def test_no_stage_sees_the_labels_of_test_clips(plant: Path) -> None:
    for unit in make_units(load_clips(plant)[0]):
        told = {(clip.condition, clip.domain, tuple(clip.attributes)) for clip in unit.clips if clip.split == "test"}
        assert told == {("unknown", "unknown", ())}


def test_machines_are_chosen_by_name(plant: Path, tmp_path: Path) -> None:
    done, _ = run(plant, tmp_path, machines=["fan"])
    assert set(done.systems[0].scores.machine) == {"fan"}
    with pytest.raises(HarkenError, match=r"no machine .pump..*fan, valve"):
        run(plant, tmp_path, machines=["pump"])


def test_one_bad_recording_is_set_aside_and_one_bad_machine_too(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copytree(plant, tmp_path / "plant")
    next((root / "fan" / "train").iterdir()).write_bytes(b"no sound")
    (test, *_) = sorted((root / "fan" / "test").iterdir())
    test.write_bytes(b"")
    for clip in list((root / "valve" / "train").iterdir())[2:]:
        clip.unlink()
    done, _ = run(root, tmp_path / "w")
    assert len(done.quarantined) == 2
    assert any("the file is empty" in row.reason for row in done.quarantined)
    assert any("valve section 00: 2 training clips are too few" in note for note in done.notes)
    assert f"fan/test/{test.name}" in done.unscored["plant"]
    page = (done.folder / "report.html").read_text()
    assert "set aside" in page
    assert "have no score" in page
    again = ["run", "spectral_knn", "--data", str(root), "--workspace", str(tmp_path / "w"), "--workers", "1"]
    assert app(args=again, standalone_mode=False) in (0, None)
    assert "left out: valve section 00" in capsys.readouterr().err
    for clip in list((root / "fan" / "train").iterdir())[2:]:
        clip.unlink()
    with pytest.raises(HarkenError, match=r"no test clip could be scored. fan section 00: 1 training clips"):
        run(root, tmp_path / "w")


def test_a_machine_without_training_clips_is_left_out(plant: Path, tmp_path: Path) -> None:
    """Of the official baseline, too, and by its whole graph."""
    root = copytree(plant, tmp_path / "plant")
    for clip in (root / "valve" / "train").iterdir():
        clip.unlink()
    done, _ = run(root, tmp_path / "w", "baseline_ae")
    assert not done.failures
    assert [note for note in done.notes if note.startswith("valve: there are no training clips")]
    assert all(one.result is not None and set(one.scores.machine) == {"fan"} for one in done.systems)


def test_a_section_without_training_clips_does_not_cost_the_others(plant: Path, tmp_path: Path) -> None:
    """A tree of 2022 with two sections, one of them with test clips only."""
    for section in ("00", "01"):
        for clip in (plant / "fan").rglob("*.wav"):
            if clip.parent.name != "supplemental" and (section == "00" or clip.parent.name == "test"):
                name = clip.name.replace("section_00", f"section_{section}")
                link = tmp_path / "dcase2022" / "fan" / clip.parent.name / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(clip)
    done, _ = run(tmp_path / "dcase2022", tmp_path / "w")
    assert not done.failures
    assert ["0 training clips are too few" in note for note in done.notes] == [True]
    assert done.systems[0].result is not None
    assert list(done.systems[0].result.numbers) == [("fan", "00")]
    assert len(done.unscored["dcase2022 dev"]) == 12


def test_a_plan_is_complete_without_data_and_tells_what_is_there(
    plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "cache"))
    told = make_plan(load_recipe("baseline_ae"), None, None)
    assert [row["stage"] for row in told["stages"]] == ["frames", "autoencoder", "mse", "mahalanobis"]
    assert "data: name it" in told["missing"][0]
    recipe = load_recipe("spectral_knn")
    assert [row["cached"] for row in make_plan(recipe, plant, tmp_path / "w")["stages"]] == [0, 0]
    run(plant, tmp_path / "w", profile="full")
    told = make_plan(recipe, plant, tmp_path / "w")
    assert [row["cached"] for row in told["stages"]] == [row["tasks"] for row in told["stages"]] == [2, 2]
    assert told["units"][0]["train"] == 13
    missing = make_plan(load_recipe("spectral_knn", changes={"stages.embed.encoder": "yamnet"}), plant, None)["missing"]
    assert any("yamnet" in text for text in missing)


@pytest.mark.parametrize("kills", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_ends_in_the_same_bytes(kills: int, plant: Path, tmp_path: Path) -> None:
    arguments = ["run", "baseline_ae", "--profile=tiny", "--workers=1", "--set=seeds=[3]", "--data", str(plant)]

    def length(*words: str) -> float:
        began = time.monotonic()
        assert command(*words).wait(300) == 0
        return time.monotonic() - began

    length("--version")
    seconds = length(*arguments, "--workspace", str(tmp_path / "a"))
    rng = np.random.default_rng(0)
    for share in sorted(rng.uniform(0.3, 0.95, size=kills)):
        process = command(*arguments, "--workspace", str(tmp_path / "b"))
        time.sleep(share * seconds)
        process.kill()
    length(*arguments, "--workspace", str(tmp_path / "b"))
    (a,), (b,) = ((tmp_path / name / "runs").iterdir() for name in "ab")
    assert a.name == b.name
    assert contents(a) == contents(b)
    assert contents(tmp_path / "a" / "objects") == contents(tmp_path / "b" / "objects")


# --- command line


def test_recipes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(args=["recipe", "list"], standalone_mode=False)
    assert "baseline_ae" in capsys.readouterr().out
    app(args=["recipe", "copy", "spectral_knn", str(tmp_path / "mine.yaml")], standalone_mode=False)
    assert "# Statistics of log-mel bands" in (tmp_path / "mine.yaml").read_text()
    with pytest.raises(HarkenError, match="is there already"):
        app(args=["recipe", "copy", "spectral_knn", str(tmp_path / "mine.yaml")], standalone_mode=False)
    app(args=["recipe", "show", str(tmp_path / "mine.yaml"), "--profile", "tiny"], standalone_mode=False)
    assert yaml.safe_load(capsys.readouterr().out)["stages"]["embed"]["level"] == "normalised"
    app(args=["plan", "baseline_ae", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["recipe"] == "baseline_ae"


# --- --set


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a=[{name: scadacos}]", [{"name": "scadacos"}]),
        ('a={"directions": 3}', {"directions": 3}),
        ("a=1e-4", 1e-4),
        ("a=2.5E+3", 2500.0),
        ("a=3", 3),
        ("a=null", None),
        ("a=", None),
        ("a=true", True),
        ("a=residual.py:Residual", "residual.py:Residual"),
        ("a=10%", "10%"),
        ("a=rdp:19", "rdp:19"),
        ("a=2025-09-01", "2025-09-01"),
        ("a=x=y", "x=y"),
        ("a='*'", "*"),
        ("a=e5", "e5"),
    ],
)
def test_what_is_set_is_yaml(word: str, value: object) -> None:
    (found,) = key_values([word]).values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("word", ["a=[1,", "a=*", "a=@x", "a={b", "a=!!python/name:os.system ''", "a=!!binary eA=="])
def test_odd_yaml_is_refused_with_the_pair(word: str) -> None:
    with pytest.raises(HarkenError, match=f"the value of {re.escape(repr(word))} is not valid YAML"):
        key_values([word])


def test_mappings_on_the_way_are_made(tmp_path: Path) -> None:
    def nearest(*pairs: str) -> dict[str, object]:
        return load_recipe("spectral_knn", changes=key_values(list(pairs))).stages["nearest"].parameters

    assert nearest("stages.nearest.parameters.neighbours=2")["parameters"] == {"neighbours": 2}
    both = nearest("stages.nearest.parameters.neighbours=2", "stages.nearest.parameters.metric=cosine")
    assert both["parameters"] == {"neighbours": 2, "metric": "cosine"}
    with pytest.raises(HarkenError, match=r"unknown key stages.nearest.paramters. Did you mean parameters"):
        nearest("stages.nearest.paramters.neighbours=2")
    with pytest.raises(HarkenError, match=r"there is no 'stages.neerest' to set. Did you mean nearest"):
        nearest("stages.neerest.parameters.neighbours=2")
    noisy = "stages.train.training.augmentation.noise_mix.probability=1"
    recipe = load_recipe("finetune", changes=key_values(["stages.*.training.losses=[{name: scadacos}]", noisy]))
    training = recipe.stages["train"].parameters["training"]
    assert [loss["name"] for loss in training["losses"]] == ["scadacos"]
    assert training["augmentation"]["noise_mix"]["probability"] == 1


def test_numbers_in_recipes_need_no_point(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(recipe_text("finetune") + "\n")
    changed = re.sub(r"learning_rate: \S+", "learning_rate: 1e-3", file.read_text())
    file.write_text(changed)
    assert load_recipe(str(file)).stages["train"].parameters["training"]["learning_rate"] == 1e-3
    file.write_text("name: x\nparameters: {rate: 1e-4}\n" + "stages: {e: {use: embed}, d: {use: detect, from: e}}\n"
                    "systems: {s: d}\ntitle: T\n")  # fmt: skip
    assert load_recipe(str(file)).parameters == {"rate": 1e-4}

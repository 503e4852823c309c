"""What a recipe may say: parts written once for many, weights that are found, what is scored and submitted."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from command_line import called
from conftest import SIZES
from harken.bench.graph import make_common, make_units
from harken.bench.recipe import load_recipe, recipe_text
from harken.bench.repeat import expand
from harken.bench.result import Run
from harken.bench.run import load_clips, run_recipe
from harken.bench.workspace import Workspace
from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.evaluation.evaluate import evaluate
from harken.plant.simulate import simulate
from test_pipeline import contents

META = {
    "submission": {
        "name": "Doe system", "abbreviation": "Doe",
        "authors": [{"firstname": "Jo", "lastname": "Doe", "email": "j@d.org", "affiliation": {"institute": "X"}}],
    }
}  # fmt: skip


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    simulate(root, machines=["fan", "pump", "valve"], hide_attributes=["valve"], **SIZES)  # type: ignore[arg-type]
    return root


def written(folder: Path, data: dict[str, Any]) -> str:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return str(file)


NEIGHBOURS: dict[str, Any] = {
    "name": "neighbours",
    "title": "Nearest neighbours of three kinds",
    "stages": {"embed": {"use": "embed", "encoder": "spectral"}},
    "repeat": [
        {
            "over": {"number": {"one": 1, "three": 3}, "metric": ["euclidean", "cosine"]},
            "stages": {
                "<number>_<metric>": {
                    "use": "detect", "from": "embed", "detector": "knn",
                    "parameters": {"neighbours": "$number", "metric": "$metric"},
                }
            },
            "systems": {"<number>_<metric>": "<number>_<metric>"},
        }
    ],
    "ensembles": {
        "given": {"members": {"one_*": 1, "three_cosine": 2}},
        "uniform": {"members": ["*"]},
        "found": {"members": ["*"], "search": {"method": "bayes", "trials": 6}},
    },
    "submission": ["found", "one_cosine"],
}  # fmt: skip


def run(recipe: str, plant: Path, workspace: Path, changes: dict[str, Any] | None = None) -> tuple[Run, list[str]]:
    started: list[str] = []
    done = run_recipe(
        load_recipe(recipe, changes=changes), plant, Workspace(workspace), workers=1,
        watch=lambda event: started.append(event.task.name) if event.state == "started" else None,
    )  # fmt: skip
    return done, started


def test_what_is_repeated_is_written_out(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, NEIGHBOURS))
    assert list(recipe.systems) == ["one_euclidean", "one_cosine", "three_euclidean", "three_cosine"]
    assert recipe.stages["three_cosine"].parameters["parameters"] == {"neighbours": 3, "metric": "cosine"}
    assert recipe.ensembles["given"].members == {"one_euclidean": 1, "one_cosine": 1, "three_cosine": 2}
    assert recipe.ensembles["uniform"].members == dict.fromkeys(recipe.systems, 1)
    # What a run keeps has no repeat, and reads the same.
    (tmp_path / "resolved.yaml").write_text(recipe.as_yaml())
    assert load_recipe(str(tmp_path / "resolved.yaml")) == recipe


def test_one_key_for_many_stages(tmp_path: Path) -> None:
    file = written(tmp_path, NEIGHBOURS)
    changed = load_recipe(file, changes={"stages.one_*.parameters.neighbours": 2})
    told = {name: stage.parameters.get("parameters", {}).get("neighbours") for name, stage in changed.stages.items()}
    assert told == {"embed": None, "one_euclidean": 2, "one_cosine": 2, "three_euclidean": 3, "three_cosine": 3}
    with pytest.raises(HarkenError, match=r"there is no 'stages\.four_\*' to set"):
        load_recipe(file, changes={"stages.four_*.parameters.neighbours": 2})
    # Stages without the key stay as they are.
    assert "parameters" not in expand(NEIGHBOURS)["stages"]["embed"]


def test_yaml_aliases_are_copies(tmp_path: Path) -> None:
    """Changing one of two stages that were written with the same alias leaves the other."""
    recipe = load_recipe("thuee_system1", changes={"stages.beats.training.steps": 7})
    assert recipe.stages["beats"].parameters["training"]["steps"] == 7
    assert recipe.stages["eat"].parameters["training"]["steps"] == 20_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeat": {"over": {}}}, "repeat is not a list"),
        ({"repeat": [{"stages": {}}]}, "does not say over what"),
        ({"repeat": [{"over": {"a": [1]}, "stage": {}}]}, r"unknown key repeat\.stage.*Did you mean stages"),
        ({"repeat": [{"over": {"rate": [1]}, "stages": {"a_<rat>": {}}}]}, "nothing is repeated over 'rat'.*mean rate"),
        ({"repeat": [{"over": {"a": [1, 2]}, "stages": {"same": {"use": "embed"}}}]}, r"stages\.same occurs twice"),
        ({"ensembles": {"e": {"members": ["four_*"]}}}, r"has a member 'four_\*', which is no system"),
        ({"ensembles": {"e": {"members": ["*"], "search": {"method": "luck"}}}}, "search.method"),
        ({"submission": ["fund"]}, "submission names 'fund'.*Did you mean found"),
    ],
)
def test_wrong_recipes(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match=message):
        load_recipe(written(tmp_path, {**NEIGHBOURS, **change}))


def test_weights_that_labels_found_are_named_so(plant: Path, tmp_path: Path) -> None:
    file = written(tmp_path, NEIGHBOURS)
    done, _ = run(file, plant, tmp_path / "w")
    shown = {one.system: one for one in done.systems}
    assert [shown[name].shown for name in ("given", "uniform", "found")] == [
        "given",
        "uniform",
        "found (tuned on test)",
    ]
    found = shown["found"].mix
    assert found is not None
    assert found.tuned_on == shown["found"].set
    assert "bayes search on the labels of" in found.source
    assert sum(found.weights.values()) == pytest.approx(1)
    # The plain mean is among what is tried.
    scores = {name: one.result.official_score for name, one in shown.items() if one.result is not None}
    assert scores["found"] >= scores["uniform"]
    assert found.left_out is not None
    assert shown["found"].left_out == found.left_out
    # Where no labels had a part, a machine left out changes nothing.
    assert shown["uniform"].left_out == scores["uniform"]
    assert shown["given"].left_out is None
    results = json.loads((done.folder / "results.json").read_text())["sets"][found.tuned_on]
    assert list(results["found"]["marks"]) == ["tuned on test"]
    assert results["found"]["mix"]["left_out"] == found.left_out
    assert "marks" not in results["uniform"]
    page = (done.folder / "report.html").read_bytes()
    assert f"{found.left_out:.4f}" in page.decode()
    # A copy of the folder is enough for the same report.
    copy = copytree(done.folder, tmp_path / "copy")
    (copy / "report.html").unlink()
    assert called("report", copy).stdout.strip() == str(copy / "report.html")
    assert (copy / "report.html").read_bytes() == page
    # The bag that was kept gives the same numbers again.
    assert app(
        args=["ensemble", "score", str(done.folder / "ensembles" / "found.yaml"), str(done.folder), "-o",
              str(tmp_path / "again")], standalone_mode=False,
    ) in (0, None)  # fmt: skip
    assert evaluate(tmp_path / "again").results[0].official_score == scores["found"]


def test_a_search_is_not_made_twice(plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harken.bench import ensembles

    searches: list[str] = []
    fit = ensembles.fit
    monkeypatch.setattr(ensembles, "fit", lambda *args, **more: (searches.append(more["name"]), fit(*args, **more))[1])
    file = written(tmp_path, NEIGHBOURS)
    done, _ = run(file, plant, tmp_path / "w")
    before = contents(done.folder)
    again, started = run(file, plant, tmp_path / "w")
    assert (searches, started) == (["found"], [])
    assert contents(again.folder) == before
    # The same bytes wherever the workspace lies.
    run(file, plant, tmp_path / "elsewhere")
    assert contents(tmp_path / "elsewhere" / "objects") == contents(tmp_path / "w" / "objects")
    searches.remove("found")
    run(file, plant, tmp_path / "w", {"ensembles.found.search.trials": 7})
    assert searches == ["found", "found"]


def test_only_some_years_are_scored(plant: Path, tmp_path: Path) -> None:
    """Six years to learn from, one to be scored; nobody chooses by the labels of others, or of evaluation clips."""
    for corpus, machine in (("dcase2024", "fan"), ("dcase2025", "valve"), ("dcase2025", "pump")):
        (tmp_path / corpus).mkdir(exist_ok=True)
        (tmp_path / corpus / machine).symlink_to(plant / machine)
    clips = load_clips(tmp_path)[0]
    assert {unit.set for unit in make_units(clips)} == {"dcase2024 dev", "dcase2025 dev", "dcase2025"}
    assert {unit.machine for unit in make_units(clips, years=[2025])} == {"valve", "pump"}
    common = make_common(clips, years=[2025])
    assert {clip.machine for clip in common["none"].clips} == {"fan", "valve", "pump"}
    assert {clip.machine for clip in common["labelled"].clips if clip.split == "test"} == {"valve", "pump"}
    with pytest.raises(HarkenError, match=r"no clips of 2021.*there are 2024, 2025"):
        make_units(clips, years=[2021])


def test_what_a_recipe_submits(plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta = tmp_path / "meta.yaml"
    meta.write_text(yaml.safe_dump(META))
    args = ["run", written(tmp_path, NEIGHBOURS), "--data", str(plant), "--workspace", str(tmp_path / "w"),
            "--workers", "1", "--label", "Doe_X_task2", "--meta", str(meta)]  # fmt: skip
    assert app(args=args, standalone_mode=False) in (0, None)
    (out,) = tmp_path.glob("w/runs/*/submission.zip")
    told = capsys.readouterr().err
    assert "Doe_X_task2_1: found" in told
    assert "Doe_X_task2_2: one_cosine" in told
    assert len(evaluate(out).results) == 2


def test_plain_scores_are_checked_against_one_set(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data of two sets, scores of one."""
    for machine in ("fan", "pump"):
        (tmp_path / "dcase2025").mkdir(exist_ok=True)
        (tmp_path / "dcase2025" / machine).symlink_to(plant / machine)
    done, _ = run(written(tmp_path, NEIGHBOURS), tmp_path / "dcase2025", tmp_path / "w")
    scores = str(done.folder / "scores" / "one_cosine" / "dcase2025_dev")
    meta = tmp_path / "meta.yaml"
    meta.write_text(yaml.safe_dump(META))
    args = ["submit", scores, "--label", "Doe_X_task2", "--meta", str(meta), "-o", str(tmp_path / "s.zip"), "--data",
            str(tmp_path / "dcase2025")]  # fmt: skip
    with pytest.raises(HarkenError, match="pump"):
        app(args=args, standalone_mode=False)
    with pytest.raises(HarkenError, match=r"no set 'dev'.*dcase2025, dcase2025 dev"):
        app(args=[*args, "--data-set", "dev"], standalone_mode=False)
    assert app(args=[*args, "--data-set", "dcase2025 dev"], standalone_mode=False) in (0, None)
    assert "12 test clips" in capsys.readouterr().err


def fewer(text: str) -> str:
    """The recipe with three BEATs instead of twelve."""
    data = yaml.safe_load(text)
    for entry in data["repeat"]:
        if "rate" in entry["over"]:
            names = {"noise": ["plain", "noisy"], "loss": ["subcentre"], "rate": ["middle"]}
            for key, kept in names.items():
                known = entry["over"][key]
                entry["over"][key] = kept if isinstance(known, list) else {name: known[name] for name in kept}
    for name in ("system_3", "system_4"):
        data["ensembles"][name]["members"] = ["baseline", "beats_noisy_subcentre_middle"]
    return yaml.safe_dump(data, sort_keys=False)


def test_sjtu_aithu(tmp_path: Path) -> None:
    """The graph of the recipe, with two of its twelve BEATs."""
    whole = load_recipe("sjtu_aithu")
    assert len(whole.systems) == 13
    trained = {name: stage.parameters for name, stage in whole.stages.items() if stage.use == "train"}
    assert len(trained) == 14
    assert len({json.dumps(parameters, sort_keys=True) for parameters in trained.values()}) == 14
    noisy = [name for name, told in trained.items() if told["training"]["augmentation"]["noise_mix"]]
    assert len(noisy) == 6
    assert {len(whole.ensembles[f"system_{number}"].members) for number in (1, 2)} == {12, 13}
    file = tmp_path / "sjtu.yaml"
    file.write_text(fewer(recipe_text("sjtu_aithu")))
    changes = {"stages.*.training.steps": 3, "stages.*.training.evaluate_every": 1, "stages.*.training.seconds": 0.5}
    changes |= {"ensembles.*.search.trials": 10}
    recipe = load_recipe(str(file), profile="tiny", changes=changes)
    sizes = {**SIZES, "train_source": 6, "train_target": 2, "test_per_condition": 2}
    simulate(tmp_path / "plant", machines=["fan", "valve"], **sizes)  # type: ignore[arg-type]
    done = run_recipe(recipe, tmp_path / "plant", Workspace(tmp_path / "w"), workers=1)
    assert not done.failures
    assert not done.notes
    names = ["baseline", "beats_plain_subcentre_middle", "beats_noisy_subcentre_middle"]
    mixed = ["system_1", "system_2", "system_3", "system_4", "uniform"]
    assert [one.system for one in done.systems] == [*names, *mixed]
    source = {one.system: one.mix.source for one in done.systems if one.mix is not None}
    assert source["system_3"].endswith("of baseline and the best 2 by worst machine")
    assert source["system_4"].endswith("of baseline and the best 2 by score")
    # Checkpoints were chosen on development clips, and all says so.
    assert all(one.tuned and one.result is not None for one in done.systems)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../../elsewhere"}, "cannot be the name of a folder"),
        ({"name": ""}, "cannot be the name of a folder"),
        ({"systems.a/b": "nearest"}, "cannot be the name of a folder"),
        ({"stages": 3}, "not a mapping of names"),
        ({"stages.embed.pooling": "gem:x"}, "is no number"),
    ],
)
def test_odd_values_are_refused_when_the_recipe_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HarkenError, match=message):
        load_recipe("spectral_knn", changes=changes)

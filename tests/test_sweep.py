"""Sweeps, names and tags of runs, and runs that end with a stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import called, harken
from harken.bench.run_names import add_names, check_run_name, find_run, find_tagged, read_names
from harken.bench.sweep import sweep_points
from harken.cli.console import key_lists
from harken.core.errors import HarkenError

NEIGHBOURS = "stages.nearest.parameters.neighbours"


@pytest.fixture(scope="module")
def swept(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]], str]:
    """A workspace with a sweep of two keys, what it prints as JSON, and to stderr."""
    work = tmp_path_factory.mktemp("sweep") / "work"
    done = harken(
        "run", "spectral_knn", "--data", plant, "--workspace", work, "--workers", 1, "--json", "--tag", "k",
        "--sweep", f"{NEIGHBOURS}=1,2", "--sweep", "stages.nearest.parameters.metric=euclidean,cosine",
    )  # fmt: skip
    return work, json.loads(done.stdout)["runs"], done.stderr


def test_a_sweep_is_the_product_and_its_runs_have_the_names_of_their_values(
    swept: tuple[Path, list[dict[str, object]], str],
) -> None:
    work, runs, said = swept
    names = [run["name"] for run in runs]
    assert names == [
        "neighbours=1,metric=euclidean", "neighbours=1,metric=cosine",
        "neighbours=2,metric=euclidean", "neighbours=2,metric=cosine",
    ]  # fmt: skip
    assert [find_run(str(name), work)[0] for name in names] == [Path(str(run["folder"])) for run in runs]
    tagged = [Path(str(runs[number]["folder"])) for number in (1, 0, 3, 2)]  # in the order of their names
    assert find_tagged(["k"], work) == tagged
    assert len({run["folder"] for run in runs}) == 4
    # Embeddings are made once, for the first run; the others only score.
    assert said.count(" embed/once_plant/") == 2
    assert said.count(" nearest/once_plant/") == 8


def test_the_number_of_a_sweep_is_that_of_the_run_alone(
    swept: tuple[Path, list[dict[str, object]], str], plant: Path
) -> None:
    work, runs, _ = swept
    words = ("run", "spectral_knn", "--data", plant, "--workspace", work, "--workers", 1)
    alone = harken(*words, "--set", f"{NEIGHBOURS}=2", "--set", "stages.nearest.parameters.metric=cosine", "--json")
    assert json.loads(alone.stdout)["sets"] == runs[3]["sets"]
    assert "0 stages run" in alone.stderr
    assert read_names(Path(str(runs[3]["folder"]))).names == ("neighbours=2,metric=cosine",)


def test_a_sweep_prints_a_line_for_each_run(plant: Path, tmp_path: Path) -> None:
    words = ("--data", plant, "--workspace", tmp_path, "--workers", 1, "--name", "base")
    done = harken("run", "spectral_knn", *words, "--sweep", f"{NEIGHBOURS}=1,2")
    first, second = done.stdout.splitlines()
    assert first.startswith("base,neighbours=1  0.")
    assert second.startswith("base,neighbours=2  0.")
    assert first.endswith("once_plant, spectral_knn")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep", "stages.nearest.neighbors=1,2"], "stages.nearest.neighbors"),
        (["--sweep", "stages.nearst.detector=knn,lof"], "Did you mean nearest"),
        (["--sweep", "stages.nearest.detector=knn,lofx"], "Did you mean lof"),
        (["--sweep", "stages.nearest.detector"], "not of the form name=value"),
        (["--sweep", "stages.nearest.detector="], "has no values"),
        (["--sweep", "stages.nearest.detector=knn,knn"], "has knn twice"),
        (["--sweep", "seeds=[0],[1]", "--sweep", "seeds=[2]"], "seeds is swept twice"),
        (["--sweep", "seeds=[0],[1]", "--set", "seeds=[2]"], "seeds is set and swept"),
        (["--only", "nearst"], "Did you mean nearest"),
        (["--only", "embed", "--name", "x"], "--only makes a stage and no run"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    words: list[str], message: str, plant: Path, tmp_path: Path
) -> None:
    done = harken("run", "spectral_knn", "--data", plant, "--workspace", tmp_path / "w", *words, code=2)
    assert message in done.stderr
    assert not list((tmp_path / "w").glob("objects/*"))


def test_a_run_of_a_sweep_that_fails_does_not_stop_the_others(plant: Path, tmp_path: Path) -> None:
    """Years that there are none of."""
    words = ("run", "spectral_knn", "--data", plant, "--workspace", tmp_path, "--workers", 1, "--json")
    done = harken(*words, "--sweep", "score_years=[1999],null", code=2)
    first, second = json.loads(done.stdout)["runs"]
    assert "there are no clips of 1999" in first["error"]
    assert second["sets"]["once_plant"]["spectral_knn"]["official_score"] > 0
    assert "failed: score_years=[1999]" in done.stderr


def test_a_stage_alone(plant: Path, tmp_path: Path) -> None:
    words = ("run", "spectral_knn", "--data", plant, "--workspace", tmp_path, "--workers", 1)
    done = harken(*words, "--only", "embed", "--json")
    made = json.loads(done.stdout)
    assert made["stage"] == "embed"
    assert sorted(made["tasks"]) == ["embed/once_plant/fan", "embed/once_plant/valve"]
    assert all((Path(task["folder"]) / "embeddings.safetensors").is_file() for task in made["tasks"].values())
    assert not list((tmp_path / "runs").iterdir())
    whole = harken(*words)
    assert "2 stages run" in whole.stderr
    assert "embed/" not in whole.stderr
    assert "0 stages run, nothing after nearest" in harken(*words, "--only", "nearest").stderr


def test_values_of_a_sweep_are_yaml() -> None:
    assert key_lists(["a=1,2.5,x", "b=[1,2],[3]", "c=1e-4,null,yes", "d='1,2'"]) == {
        "a": [1, 2.5, "x"],
        "b": [[1, 2], [3]],
        "c": [1e-4, None, True],
        "d": ["1,2"],
    }


def test_names_tell_keys_apart() -> None:
    points = sweep_points({"stages.a.training.steps": [1], "stages.b.training.steps": [2], "stages.a.rate": [0.1]})
    assert [point.name for point in points] == ["a.training.steps=1,b.training.steps=2,rate=0.1"]
    with pytest.raises(HarkenError, match="10,000 runs"):
        sweep_points({"a": list(range(100)), "b": list(range(100))})


def test_a_name_belongs_to_one_run(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("knn-1", "knn-2"):
        (runs / name).mkdir(parents=True)
        (runs / name / "results.json").write_text("{}")
    add_names(runs / "knn-1", "first", ["a"])
    add_names(runs / "knn-1", "again", ["b"])
    assert read_names(runs / "knn-1").names == ("first", "again")
    assert read_names(runs / "knn-1").tags == ("a", "b")
    check_run_name("first", runs / "knn-1")
    with pytest.raises(HarkenError, match="there is a run first of other settings"):
        check_run_name("first", runs / "knn-3")
    with pytest.raises(HarkenError, match="cannot be the name of a run"):
        check_run_name("a\nb", runs / "knn-3")
    add_names(runs / "knn-2", "k=10", ["b"])
    add_names(runs / "knn-1", "k=9", [])
    assert find_tagged(["b"], tmp_path) == [runs / "knn-1", runs / "knn-2"]
    assert find_run("first", tmp_path) == (runs / "knn-1", "first")
    assert find_run(runs / "knn-1") == (runs / "knn-1", "k=9")
    with pytest.raises(HarkenError, match=r"has no run 'frist'\. Did you mean first"):
        find_run("frist", tmp_path)
    with pytest.raises(HarkenError, match=r"is not a run\. Give a folder below WORKSPACE/runs, or --workspace"):
        find_run("first")
    with pytest.raises(HarkenError, match=r"no run with the tag c\. There are: a, b"):
        find_tagged(["c"], tmp_path)
    add_names(runs / "knn-2", "first", [])
    with pytest.raises(HarkenError, match="2 runs have the name first"):
        find_run("first", tmp_path)


def test_a_name_that_another_run_has_is_refused_before_it_runs(
    swept: tuple[Path, list[dict[str, object]], str], plant: Path
) -> None:
    work, runs, _ = swept
    words = ("run", "spectral_knn", "--data", plant, "--workspace", work, "--set", f"{NEIGHBOURS}=4")
    done = called(*words, "--name", str(runs[0]["name"]))
    assert done.returncode == 2
    assert "there is a run neighbours=1,metric=euclidean of other settings or data already" in done.stderr
    assert "[" not in done.stderr


def test_stages_are_shared_with_a_run_of_another_machine(plant: Path, tmp_path: Path) -> None:
    """One workspace for runs of some machines and of all: what is stored is used again."""
    words = ("run", "spectral_knn", "--data", plant, "--workspace", tmp_path, "--workers", 1)
    assert "2 stages run" in harken(*words, "--machine", "fan").stderr
    assert "2 stages run" in harken(*words).stderr

"""The system of USTC: the score of a clip and that of its separated sound, and all of it on small networks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from harken.bench.recipe import load_recipe
from harken.bench.run import run_recipe
from harken.bench.stages.separated_scores import BothScores, separated_of
from harken.bench.workspace import Workspace
from harken.core.errors import HarkenError
from harken.data.clips import Clip, derive
from harken.plant.simulate import simulate

NAN = float("nan")


def test_scores_of_recorded_and_separated_sound_are_added() -> None:
    partners = {"a": "a#s", "b": "b#s"}
    score_of = {"a": 1.0, "b": 2.0, "c": 3.0, "a#s": 0.5, "b#s": 0.25}
    both = BothScores.of(["a", "b", "c"], score_of, partners)
    assert both.lacking == 1
    assert both.joined("added", both).tolist() == [1.5, 2.25, 6.0]
    held = BothScores(np.array([1.0, 3.0]), np.array([0.0, 1.0]))
    # (1 - 2) / 1 + (0.5 - 0.5) / 0.5, and so on; what has no separated sound counts twice.
    assert both.joined("standardised", held).tolist() == [-1.0, -0.5, 2.0]


def test_scores_without_deviation_stay_finite() -> None:
    both = BothScores(np.array([1.0, 2.0]), np.array([NAN, 1.0]))
    held = BothScores(np.array([1.0, 1.0]), np.array([NAN, NAN]))
    assert both.joined("standardised", held).tolist() == [0.0, 2.0]


def test_two_separated_clips_of_one_recording_are_refused() -> None:
    clip = Clip("a", Path("a.wav"), machine="fan", split="test")
    made = [derive(clip, f"a#{number}", Path(f"{number}.flac"), "separated") for number in range(2)]
    assert separated_of([clip, made[0]]) == {"a": "a#0"}
    with pytest.raises(HarkenError, match="two separated clips"):
        separated_of([clip, *made])


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fans with clean clips, pumps with noise clips, sliders with neither."""
    root = tmp_path_factory.mktemp("plant")
    simulate(root, machines=["fan", "pump", "slider"], train_source=6, train_target=2, test_per_condition=2,
             supplemental=2, seconds=1.0)  # fmt: skip
    for file in root.glob("slider/supplemental/*"):
        file.unlink()
    return root


def scores(run: Path, machine: str) -> dict[str, float]:
    file = run / "scores" / "ustc_10k_2025" / "seed_0" / f"anomaly_score_{machine}_section_00_test.csv"
    with file.open() as lines:
        return {name: float(score) for name, score in csv.reader(lines)}


def test_ustc_runs_on_small_networks(tmp_path: Path, plant: Path) -> None:
    workspace = Workspace(tmp_path / "work")
    small = {
        "stages.separators.training.steps": 2,
        "stages.separators.config": {"features": 8, "stages": 1},
        "stages.pretrain_*.steps": 2,
        "stages.pretrain_*.clones": 2,
        "stages.pretrain_*.config": {"depth": 1},
        "stages.train_*.training.epochs": 1,
        "stages.remix_20k.clips": 24,
    }
    runs = {}
    for how in ("apart", "added"):
        recipe = load_recipe("ustc", profile="tiny", changes={**small, "separated": how})
        runs[how] = run_recipe(recipe, plant, workspace, workers=1)
        assert set(recipe.submission) <= {folder.name for folder in (runs[how].folder / "scores").iterdir()}
    apart, added = (scores(run.folder, "fan") for run in runs.values())
    assert len(apart) == 8
    # Separated clips are scored, and are no clips of the official table.
    assert apart.keys() == added.keys()
    assert all(added[name] > apart[name] for name in apart)
    # Nothing is known of the slider but its recordings.
    assert scores(runs["apart"].folder, "slider") == scores(runs["added"].folder, "slider")
    assert any("slider" in note and "without separated clips" in note for note in runs["added"].notes)


def test_hidden_attributes_become_clusters(tmp_path: Path) -> None:
    data = tmp_path / "plant"
    simulate(data, machines=["fan", "pump"], train_source=6, train_target=2, test_per_condition=2, seconds=1.0,
             hide_attributes=["pump"])  # fmt: skip
    small = {"stages.pretrain.steps": 2, "stages.pretrain.clones": 2, "stages.classes.clusters": 2}
    recipe = load_recipe("ustc_attributes", profile="tiny", changes=small)
    run = run_recipe(recipe, data, Workspace(tmp_path / "work"), workers=1)
    (classes,) = (tmp_path / "work").glob("objects/**/classes.txt")
    lines = classes.read_text().splitlines()
    # Clusters of the pump are classes; the fan keeps the operating conditions of its file names.
    assert len([line for line in lines if "pump" in line and "pseudo=" in line]) >= 2
    assert not [line for line in lines if "fan" in line and "pseudo=" in line]
    assert (run.folder / "scores" / "ustc_attributes").is_dir()

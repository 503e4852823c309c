"""harken package: a run's system as a model, whose scores are the run's to the last bit."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from harken.bench.package import package
from harken.bench.recipe import load_recipe
from harken.bench.run import run_recipe
from harken.bench.workspace import Workspace
from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.encoders.checks import check_encoder
from harken.monitor.detector import Detector
from harken.monitor.stored import save_fitted
from harken.plant.simulate import simulate
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.training.trained_encoder import TrainedEncoder

RECIPE = """
name: small
title: Small
summary: Two embeddings, one after the other and mixed.
stages:
  bands: {use: embed, encoder: spectral}
  mels: {use: embed, encoder: log_mel, level: recorded}
  both: {use: concatenate, from: [bands, mels], weights: [1.0, 0.5]}
  single: {use: detect, from: bands}
  joined: {use: detect, from: both, detector: knn}
  mixed: {use: combine, from: [single, joined], weights: [0.7, 0.3]}
systems: {single: single, joined: joined, mixed: mixed}
ensembles:
  by_train: {members: {single: 0.7, mixed: 0.4}, tuned: someone}
  by_gamma: {members: [single, joined, mixed], normalise: gamma}
  by_rank: {members: [single, joined], normalise: rank}
  as_they_are: {members: {joined: 0.2, single: 3}, normalise: none}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    plant = folder / "plant"
    simulate(
        plant, machines=["fan"], train_source=12, train_target=2, test_per_condition=2, supplemental=0, seconds=1.0
    )
    (folder / "small.yaml").write_text(RECIPE)
    recipe = load_recipe(str(folder / "small.yaml"))
    return run_recipe(recipe, folder / "plant", Workspace(folder / "ws"), machines=["fan"], workers=0).folder


@pytest.mark.parametrize("system", ["single", "joined", "mixed", "by_train", "by_gamma", "by_rank", "as_they_are"])
def test_a_packaged_system_scores_as_its_run(run: Path, system: str, tmp_path: Path) -> None:
    fitted, false_alarms = package(run, system, workers=0)
    save_fitted(tmp_path / "m.harken", fitted, false_alarms)
    detector = Detector.load(tmp_path / "m.harken")
    (file,) = (run / "scores" / system).glob("anomaly_score*.csv")
    rows = list(csv.reader(file.read_text().splitlines()))
    folder = run.parents[2] / "plant"
    paths = [next(folder.rglob(name)) for name, _ in rows[:4]]
    verdicts = list(detector.score_many(paths, workers=0))
    assert [verdict.score for verdict in verdicts] == [float(score) for _, score in rows[:4]]
    assert all(verdict.explanation is not None for verdict in verdicts)
    assert np.isfinite(detector.threshold)


def test_what_cannot_be_packaged_is_refused(run: Path) -> None:
    with pytest.raises(HarkenError, match=r"no system 'singel'.*single"):
        package(run, "singel")
    with pytest.raises(HarkenError, match=r"no such machine"):
        package(run, "single", machine="valve")


def test_a_trained_network_keeps_what_encoders_guarantee() -> None:
    branch = {"encoder": "dasheng", "size": "tiny", "head": {"dims": [8]}}
    model = build_model(ModelSpec.model_validate({"branches": [branch], "seed": 1}))
    encoder = TrainedEncoder.of(model, 0.5)
    check_encoder("trained", encoder.config(), encoder.weights())


def test_marks_of_the_runs_numbers_stay_with_the_model(run: Path, tmp_path: Path) -> None:
    model = str(tmp_path / "m.harken")
    assert CliRunner().invoke(app, ["package", str(run), "by_train", "-o", model]).exit_code == 0
    mark = "tuned on test: the weights of by_train were chosen by someone"
    assert mark in Detector.load(model).notes
    (recording, *_) = sorted((run.parents[2] / "plant").rglob("*test*.wav"))
    assert mark in CliRunner().invoke(app, ["score", str(recording), "-m", model]).stderr

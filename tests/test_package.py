"""harken package: a run's system as a model, whose scores are the run's to the last bit."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
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

LAYERS = """
name: layers
title: Layers
summary: The layers of a trained network.
stages:
  labels: {use: labels, policy: sjtu_aithu}
  train:
    use: train
    from: labels
    model: {branches: [{encoder: beats, size: tiny, head: {kind: attentive, dims: [8]}}]}
    training: {steps: 2, batch: 4, seconds: 1.0, evaluate_every: 2, keep: 1, losses: [{name: subcentre_arcface}]}
  read: {use: embed_trained, from: train, layers: all}
  layers: {use: detect, from: read, detector: knn}
systems: {layers: layers}
"""

TRAINED = """
name: trained
title: Trained
summary: Two networks, of two seeds each, mixed.
seeds: [0, 1]
stages:
  labels: {use: labels, policy: sjtu_aithu}
  dasheng:
    use: train
    from: labels
    model: {branches: [{encoder: dasheng, size: tiny, head: {kind: attentive, dims: [8]}}]}
    training: &short {steps: 2, batch: 4, seconds: 1.0, evaluate_every: 2, keep: 1, losses: [{name: subcentre_arcface}]}
  efficientat:
    use: train
    from: labels
    model: {branches: [{encoder: efficientat, size: tiny, head: {kind: attentive, dims: [8]}}]}
    training: *short
  embed_dasheng: {use: embed_trained, from: dasheng}
  embed_efficientat: {use: embed_trained, from: efficientat}
  first: {use: detect, from: embed_dasheng, detector: knn, parameters: {space: raw, metric: cosine}}
  second: {use: detect, from: embed_efficientat}
  both: {use: combine, from: [first, second]}
systems: {first: first, second: second, both: both}
ensembles: {all: {members: {first: 1, second: 2}, normalise: gamma}}
"""

BASELINE = """
name: baseline
title: Baseline
summary: An autoencoder as published and as in the paper.
seeds: [3]
stages:
  frames: {use: frames, encoder: log_mel, microphones: near}
  autoencoder: {use: autoencoder, from: frames, epochs: 3}
  of_paper: {use: autoencoder, from: frames, epochs: 3, variant: paper}
  mse: {use: reconstruct, from: [autoencoder, frames]}
  mahalanobis: {use: reconstruct, from: [autoencoder, frames], mode: mahalanobis}
  equation: {use: reconstruct, from: [of_paper, frames], mode: mahalanobis, variant: paper}
  mixed: {use: combine, from: [mse, equation]}
systems: {mse: mse, mahalanobis: mahalanobis, equation: equation, mixed: mixed}
"""


def run_small(folder: Path, recipe: str, machines: list[str], source: int = 12, test: int = 2) -> Path:
    """Folder of a run of the recipe on a small plant of these machines, of which the fan is scored."""
    plant, workspace = folder / "plant", Workspace(folder / "ws")
    simulate(
        plant,
        machines=machines,
        train_source=source,
        train_target=2,
        test_per_condition=test,
        supplemental=0,
        seconds=1.0,
    )
    for machine in machines[1:]:
        shutil.rmtree(next(plant.rglob(machine)) / "test")
    (folder / "recipe.yaml").write_text(recipe)
    return run_recipe(load_recipe(str(folder / "recipe.yaml")), plant, workspace, workers=1).folder


def check_scores(run: Path, system: str, scores: Path, model: Path, seed: int | None = None) -> None:
    """Package it, and compare the scores of a few recordings with those in the run's files."""
    save_fitted(model, package(run, system, workers=0, seed=seed))
    detector = Detector.load(model)
    (file,) = scores.glob("anomaly_score*.csv")
    rows = list(csv.reader(file.read_text().splitlines()))[:4]
    paths = [next((run.parents[2] / "plant").rglob(name)) for name, _ in rows]
    verdicts = list(detector.score_many(paths, workers=0))
    assert [verdict.score for verdict in verdicts] == [float(score) for _, score in rows]
    assert all(verdict.explanation is not None for verdict in verdicts)
    assert np.isfinite(detector.threshold)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("package"), RECIPE, ["fan"])


@pytest.mark.parametrize("system", ["single", "joined", "mixed", "by_train", "by_gamma", "by_rank", "as_they_are"])
def test_a_packaged_system_scores_as_its_run(run: Path, system: str, tmp_path: Path) -> None:
    check_scores(run, system, run / "scores" / system, tmp_path / "m.harken")


def test_trained_networks_of_several_seeds_and_machines_score_as_their_run(tmp_path: Path) -> None:
    """The training has learned from a machine that is not scored, too."""
    run = run_small(tmp_path, TRAINED, ["fan", "valve"], source=5, test=1)
    with pytest.raises(HarkenError, match=r"several trainings.*--seed among 0, 1"):
        package(run, "both")
    check_scores(run, "both", run / "scores" / "both" / "seed_1", tmp_path / "both.harken", seed=1)
    check_scores(run, "all", run / "scores" / "all", tmp_path / "all.harken")


def test_a_packaged_system_is_exported(tmp_path: Path) -> None:
    """One that reads layers of a trained network: without torch it scores as the run did."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    from harken.export.model import export_model

    run = run_small(tmp_path, LAYERS, ["fan"], source=5, test=2)
    (file,) = (run / "scores" / "layers").rglob("anomaly_score*.csv")
    check_scores(run, "layers", file.parent, tmp_path / "m.harken")
    export_model(Detector.load(tmp_path / "m.harken")).detector.save(tmp_path / "edge.harken")
    rows = list(csv.reader(file.read_text().splitlines()))
    paths = [next((tmp_path / "plant").rglob(name)) for name, _ in rows]
    scores = [verdict.score for verdict in Detector.load(tmp_path / "edge.harken").score_many(paths, workers=0)]
    np.testing.assert_allclose(scores, [float(score) for _, score in rows], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("baseline"), BASELINE, ["fan"], source=8)


@pytest.mark.parametrize("system", ["mse", "mahalanobis", "equation"])
def test_an_autoencoder_scores_frames_as_its_run_but_for_rounding(baseline: Path, system: str, tmp_path: Path) -> None:
    save_fitted(tmp_path / "m.harken", package(baseline, system, workers=0))
    detector = Detector.load(tmp_path / "m.harken")
    (file,) = (baseline / "scores" / system).rglob("anomaly_score*.csv")
    rows = list(csv.reader(file.read_text().splitlines()))
    paths = [next((baseline.parents[2] / "plant").rglob(name)) for name, _ in rows]
    verdicts = list(detector.score_many(paths, workers=0))
    np.testing.assert_allclose([v.score or 0 for v in verdicts], [float(score) for _, score in rows], rtol=1e-6)
    assert all(verdict.explanation is not None for verdict in verdicts)
    learned = [note for note in detector.notes if "expect more false alarms" in note]
    assert len(learned) == (system == "mahalanobis")
    detector.set_alarm("1%")
    assert np.isfinite(detector.threshold)


def test_an_autoencoder_needs_no_torch_and_is_not_mixed(baseline: Path, tmp_path: Path) -> None:
    save_fitted(tmp_path / "m.harken", package(baseline, "mse", workers=0))
    recording = next((baseline.parents[2] / "plant").rglob("*test*.wav"))
    program = (
        "import sys, harken; sys.modules['torch'] = None; "
        f"print(harken.load({str(tmp_path / 'm.harken')!r}).score({str(recording)!r}).score)"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(printed) == Detector.load(tmp_path / "m.harken").score(recording).score
    with pytest.raises(HarkenError, match=r"mse scores by an autoencoder.*members one by one"):
        package(baseline, "mixed")
    with pytest.raises(HarkenError, match=r"one for all sections.*Leave --section out"):
        package(baseline, "mse", section="00")


def test_what_cannot_be_packaged_is_refused(run: Path) -> None:
    with pytest.raises(HarkenError, match=r"no system 'singel'.*single"):
        package(run, "singel")
    with pytest.raises(HarkenError, match=r"no machine 'valve'; there are fan of .* Choose another --machine"):
        package(run, "single", machine="valve")
    with pytest.raises(HarkenError, match=r"no data set 'eval'; there are fan of .* Choose another --data-set"):
        package(run, "single", machine="fan", data_set="eval")


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

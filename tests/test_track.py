"""Parameters and numbers of runs in TensorBoard and MLflow."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from command_line import harken
from harken.bench.track import numbers_of
from harken.core.extras import EXTRAS
from test_pipeline import run

NEIGHBOURS = "stages.nearest.parameters.neighbours"


def read_hyperparameters(folder: Path) -> tuple[dict[str, Any], str, dict[str, float]]:
    """What the HParams page shows of one folder of logs: parameters, name of the trial, last scalars."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder)).Reload()
    content = events.PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    session = HParamsPluginData.FromString(content).session_start_info
    values = {key: getattr(value, value.WhichOneof("kind")) for key, value in session.hparams.items()}
    tags = events.Tags()
    scalars = {tag: events.Scalars(tag)[-1].value for tag in tags["scalars"]}
    for tag in tags["tensors"]:
        if not tag.startswith("_hparams_"):
            scalars[tag] = float(make_ndarray(events.Tensors(tag)[-1].tensor_proto))
    return values, session.group_name, scalars


def test_runs_of_a_sweep_are_in_tensorboard(plant: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    words = ("run", "spectral_knn", "--data", plant, "--workspace", tmp_path, "--workers", 1, "--json")
    done = harken(*words, "--sweep", f"{NEIGHBOURS}=1,2", "--log-to", "tensorboard")
    assert done.stderr.count(f"tensorboard --logdir {tmp_path / 'logs'}") == 2
    for number, each in enumerate(json.loads(done.stdout)["runs"], start=1):
        folder = tmp_path / "logs" / "runs" / Path(each["folder"]).name
        values, name, scalars = read_hyperparameters(folder)
        assert name == each["name"] == f"neighbours={number}"
        assert values[NEIGHBOURS] == number
        assert values["stages.embed.encoder"] == "spectral"
        assert "title" not in values
        score = each["sets"]["once_plant"]["spectral_knn"]["official_score"]
        assert scalars["once_plant/spectral_knn/official_score"] == pytest.approx(score, rel=1e-6)
        assert "once_plant/spectral_knn/machine fan" in scalars
        assert len(list(folder.iterdir())) == 1
    again = harken(*words, "--set", f"{NEIGHBOURS}=2", "--log-to", "tensorboard")
    assert "0 stages run" in again.stderr
    assert len(list(folder.iterdir())) == 1
    # It keeps the name that it was given before.
    assert read_hyperparameters(folder)[1] == "neighbours=2"


def test_trainings_have_their_settings_in_tensorboard(plant: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard")
    changes = {
        "encoder": "dasheng", "stages.train.training.steps": 2, "stages.train.training.batch": 4,
        "stages.train.training.evaluate_every": 2, "stages.train.training.learning_rate": 0.002,
        "stages.train.training.choose": "dev",
    }  # fmt: skip
    done, _ = run(plant, tmp_path, "finetune", changes=changes)
    (file,) = (tmp_path / "logs").rglob("events.*")
    values, _, scalars = read_hyperparameters(file.parent)
    assert values["settings.learning_rate"] == 0.002
    assert values["model.branches.0.encoder"] == "dasheng"
    assert not [key for key in values if key.endswith("sha256")]
    assert {"loss", "held_out/accuracy"} <= scalars.keys()
    # Checkpoints were chosen by test labels: the names of all numbers of the run say so.
    assert all("(tuned on test)" in name for name in numbers_of(done))


def test_an_unknown_tracker_is_refused(plant: Path, tmp_path: Path) -> None:
    done = harken("run", "spectral_knn", "--data", plant, "--workspace", tmp_path, "--log-to", "mlflw", code=2)
    assert "runs are not logged to 'mlflw'. Did you mean mlflow." in done.stderr


def test_mlflow_is_named_with_its_extra_before_anything_runs(plant: Path, tmp_path: Path) -> None:
    assert EXTRAS["mlflow"].packages == ("mlflow",)
    if find_spec("mlflow") is not None:
        pytest.skip("mlflow is installed")
    words = ("run", "spectral_knn", "--data", plant, "--workspace", tmp_path, "--log-to", "mlflow")
    done = harken(*words, code=2)
    assert "runs in MLflow need mlflow. Install it with: pip install 'harken[mlflow]'." in done.stderr
    assert not list(tmp_path.glob("objects/*"))


def test_a_run_is_one_run_of_mlflow(plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    words = (
        "run", "spectral_knn", "--data", plant, "--workspace", tmp_path / "w", "--workers", 1, "--json",
        "--log-to", "mlflow",
    )  # fmt: skip
    printed = json.loads(harken(*words, "--name", "k=2", "--tag", "a", "--set", f"{NEIGHBOURS}=2").stdout)
    harken(*words, "--name", "again", "--tag", "b", "--set", f"{NEIGHBOURS}=2")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("spectral_knn")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.run_name == "again"
    assert logged.info.status == "FINISHED"
    assert logged.data.params[NEIGHBOURS] == "2"
    score = printed["sets"]["once_plant"]["spectral_knn"]["official_score"]
    assert logged.data.metrics["once_plant/spectral_knn/official_score"] == score
    assert logged.data.tags["harken.run"] == Path(printed["folder"]).name
    assert logged.data.tags["harken.tags"] == "a, b"
    assert {file.path for file in client.list_artifacts(logged.info.run_id)} == {"recipe.yaml", "results.json"}


def test_an_error_of_mlflow_is_a_sentence(plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    words = ("run", "spectral_knn", "--data", plant, "--workspace", tmp_path, "--workers", 1, "--log-to", "mlflow")
    done = harken(*words, code=2)
    assert "harken: MLflow: " in done.stderr
    assert "The run itself is complete" in done.stderr
    assert list(tmp_path.glob("runs/*/report.html"))

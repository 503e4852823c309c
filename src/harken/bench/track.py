"""Runs in the programs that keep track of experiments: TensorBoard and MLflow."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from harken.bench.compare import machine_scores
from harken.bench.result import Run, grouped
from harken.bench.run_names import read_names
from harken.core.errors import HarkenError, did_you_mean
from harken.core.extras import need
from harken.core.flat import flat_values
from harken.core.version import __version__
from harken.evaluation.scores import merged_marks
from harken.training.hyperparameters import hyperparameters_summary

#: tracker -> what needs its package
TRACKERS = {"tensorboard": "logs", "mlflow": "runs in MLflow"}
#: of MLflow: parameters of one call, characters of a value and of a name
_BATCH, _LONGEST, _LONGEST_NAME = 100, 6000, 250
#: parts of a recipe that change no number
_WORDS = ("title", "summary", "reference", "meta", "submission")


def check_trackers(trackers: Sequence[str]) -> None:
    """Raise HarkenError for an unknown tracker and, naming the extra, for one whose package is missing."""
    for tracker in trackers:
        if tracker not in TRACKERS:
            raise HarkenError(f"runs are not logged to {tracker!r}", next_step=did_you_mean(tracker, TRACKERS))
        need(tracker, TRACKERS[tracker])


def track(run: Run, trackers: Sequence[str], workspace: Path) -> list[str]:
    """Log the parameters, official numbers and marks of a run under its latest name; returns where to, in words.

    Logging the same run again replaces what TensorBoard has of it, and updates it in MLflow.
    Raises HarkenError for a missing package, and for errors of MLflow's client.
    """
    return [_tensorboard(run, workspace) if tracker == "tensorboard" else _mlflow(run) for tracker in trackers]


def numbers_of(run: Run) -> dict[str, float]:
    """`set/system (its marks)/number` -> mean over seeds, of the official score and its summary and of each machine."""
    numbers: dict[str, float] = {}
    for (label, system), seeds in grouped(run.systems).items():
        results = [scored.result for scored in seeds if scored.result is not None]
        rows = [
            {**result.summary, **{f"machine {key}": value for key, value in machine_scores(result).items()}}
            for result in results
        ]
        for key in rows[0] if rows else ():
            numbers[f"{label}/{system}/{key}"] = float(np.mean([row[key] for row in rows]))
    return numbers


def _name(run: Run) -> str:
    """The latest that it was given, else that of its folder."""
    return (run.folder.name, *read_names(run.folder).names)[-1]


def _settings(run: Run) -> dict[str, Any]:
    recipe = yaml.safe_load(run.recipe.as_yaml())
    return {key: value for key, value in recipe.items() if key not in _WORDS}


def _tensorboard(run: Run, workspace: Path) -> str:
    """Event file in `logs/runs/RUN` of the workspace."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = workspace / "logs" / "runs" / run.folder.name
    shutil.rmtree(folder, ignore_errors=True)
    writer = EventFileWriter(str(folder))
    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers_of(run).items()]
    for summary in (hyperparameters_summary(_settings(run), _name(run)), Summary(value=scalars)):
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
    writer.close()
    return f"{folder}: tensorboard --logdir {workspace / 'logs'}"


def _mlflow(run: Run) -> str:
    """A run of the experiment named like the recipe, where MLFLOW_TRACKING_URI says."""
    need("mlflow", TRACKERS["mlflow"])
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    with _errors_of_mlflow():
        client = MlflowClient()
        experiment = client.get_experiment_by_name(run.recipe.name)
        place = client.create_experiment(run.recipe.name) if experiment is None else experiment.experiment_id
        marks = {
            f"{label}, {system}: {mark}": reason
            for (label, system), seeds in grouped(run.systems).items()
            for mark, reason in merged_marks(scored.marks for scored in seeds).items()
        }
        labels = {
            "harken.run": run.folder.name,
            "harken.folder": str(run.folder),
            "harken.version": __version__,
            "harken.tags": ", ".join(read_names(run.folder).tags),
            "harken.marks": "; ".join(f"{key}: {reason}" for key, reason in marks.items()),
        }
        before = client.search_runs([place], filter_string=f"tags.`harken.run` = '{run.folder.name}'", max_results=1)
        logged = before[0] if before else client.create_run(place, run_name=_name(run))
        run_id = logged.info.run_id
        for key, value in labels.items():
            client.set_tag(run_id, key, value[:_LONGEST])
        client.update_run(run_id, name=_name(run))
        values = {key: str(value)[:_LONGEST] for key, value in flat_values(_settings(run)).items()}
        parameters = [Param(key, value) for key, value in _named(values).items()]
        for start in range(0, len(parameters), _BATCH):
            client.log_batch(run_id, params=parameters[start : start + _BATCH])
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, 0) for key, value in _named(numbers_of(run)).items()]
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        for file in ("recipe.yaml", "results.json"):
            client.log_artifact(run_id, str(run.folder / file))
        client.set_terminated(run_id)
    return f"MLflow: experiment {run.recipe.name}, run {run_id}"


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by names that MLflow takes, which are letters, digits, `_ - . / :` and blanks."""
    return {" ".join(re.sub(r"[^\w\-. :/]", " ", key, flags=re.ASCII).split())[:_LONGEST_NAME]: value
            for key, value in values.items()}  # fmt: skip


@contextmanager
def _errors_of_mlflow() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise HarkenError(
            f"MLflow: {' '.join(str(error).split())[:600]}",
            next_step="The run itself is complete; check MLFLOW_TRACKING_URI and run again, which only logs",
        ) from error

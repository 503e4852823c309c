"""docs/monitor.md and docs/plant.yaml: what is written there works."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from command_line import harken, pasted
from harken.monitor.detector import Detector
from harken.service.configuration.model import SINKS, SOURCES
from harken.service.configuration.read import read_configuration
from harken.service.monitor import Monitor
from harken.service.sinks.metrics import Metrics
from test_monitor import recordings

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "monitor.md").read_text(encoding="utf-8")


def test_the_first_run_and_the_first_answer(tmp_path: Path) -> None:
    recordings(tmp_path / "normal", 0, 40)
    recordings(tmp_path / "recordings", 50, 12, fault=True)
    first, answer, teaching = (
        next(block for block in re.findall(r"^```\n(.*?)^```", PAGE, re.S | re.M) if words in block)
        for words in ("--once", "monitor ack", "monitor normal")
    )
    done = pasted(first, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pump: unacknowledged" in done.stdout
    for words in (answer, teaching):
        done = pasted(words, tmp_path)
        assert done.returncode == 0, done.stderr
    for words in re.findall(
        r"`harken (monitor (?:shelve|unshelve|out-of-service|in-service|rebaseline|versions) [^`]*)`", PAGE
    ):
        harken(*words.split(), folder=tmp_path)
    # The monitor that comes next answers them all.
    harken("monitor", "recordings", "-m", "pump.harken", "--once", folder=tmp_path)
    assert "acknowledged by Ada" in harken("monitor", "alarms", folder=tmp_path).stdout
    rows = harken("monitor", "versions", "pump", "--json", folder=tmp_path).stdout.splitlines()
    versions = [json.loads(row) for row in rows]
    assert [version["kind"] for version in versions][-4:] == ["fault", "rollback", "update", "fit"]
    harken("monitor", "versions", "pump", "--since", "30d", folder=tmp_path)
    compared = harken(
        "model", "diff", "pump.harken", "1", "2", "--heard-by", "harken-monitor", "--machine", "pump", folder=tmp_path
    ).stdout
    assert "version 1: 12 of 12 recordings are alarms" in compared
    assert "version 2: 0 of 12 recordings are alarms" in compared


@pytest.fixture
def plant_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(DOCS / "plant.yaml", tmp_path)
    monkeypatch.setenv("MQTT_PASSWORD", "one")
    (tmp_path / "webhook.secret").write_text("two\n")
    return tmp_path / "plant.yaml"


def test_the_example_has_every_kind(plant_file: Path) -> None:
    plant = read_configuration(plant_file)
    assert {sink.kind for sink in plant.sinks.values()} == set(SINKS)
    assert {source.kind for source in plant.sources.values()} <= set(SOURCES)
    text = harken("monitor", "install", "--config", plant_file).stdout
    assert "harken-hall-2.service" in text


def test_the_example_runs(plant_file: Path) -> None:
    """Everything is made of it, but for the microphone, which few machines of tests have."""
    folder = plant_file.parent
    recordings(folder / "normal", 0, 12)
    Detector.fit(folder / "normal", workers=0).save(folder / "pump.harken")
    shutil.copytree(folder / "pump.harken", folder / "fan.harken")
    text = plant_file.read_text()
    microphone = re.search(r"    kind: microphone.*?rate: 16000\n", text, re.S)
    assert microphone is not None
    text = text.replace(microphone[0], "    kind: folder\n    path: recordings/fan\n").replace(
        "http: {port: 9464}", "http:"
    )
    plant_file.write_text(text.replace("    channels: [1]                   # of", "    # of"))
    monitor = Monitor(read_configuration(plant_file), once=True)
    assert set(monitor.fleet.machines) == {"pump", "fan"}
    assert set(monitor.mailroom.states) == {"plant-network", "people", "maintenance-system", "siren"}
    monitor.recorder.close()
    monitor.evidence.close()


def test_metrics_that_the_page_names_are_there() -> None:
    names = {metric.name for metric in Metrics().registry.collect()}
    assert set(re.findall(r"`(harken_\w+?)(?:_total)?`", PAGE)) <= names


def test_the_container_has_what_it_says() -> None:
    """Read, since few machines of tests have Docker: its extras exist, it runs as a user, its words are commands."""
    import tomllib

    root = DOCS.parent
    text = (root / "Dockerfile").read_text()
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', text)
    with (root / "pyproject.toml").open("rb") as handle:
        optional = tomllib.load(handle)["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(optional)
    assert not any("torch" in package for extra in extras.split(",") for package in optional[extra])
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", text, re.M)
    assert all((root / name).exists() for names in copied for name in names.split())
    assert text.index("USER harken") < text.index("ENTRYPOINT")

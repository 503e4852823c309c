"""harken model: a model learns from recordings, is compared, and goes back."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import soundfile as sf

from command_line import harken, pasted
from harken.monitor.versions import list_versions
from learned_machines import RATE, sound


def record(folder: Path, seeds: Iterable[int], **kind: float) -> Path:
    folder.mkdir()
    for seed in seeds:
        sf.write(folder / f"{folder.name}_{seed:03d}.wav", sound(seed, **kind), RATE)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    record(folder / "normal", range(40))
    record(folder / "new", range(100, 112), hum_hz=300.0)
    record(folder / "faulty", range(200, 206), whine_hz=1900.0)
    record(folder / "worse", range(210, 213), whine_hz=1900.0)
    harken("fit", folder / "normal", "-o", folder / "m.harken", "--false-alarms", "1%", "--workers", "1")
    return folder


def test_a_model_learns_is_compared_and_goes_back(place: Path) -> None:
    model, common = place / "m.harken", ("--workers", "1")
    fault = harken("model", "update", model, place / "faulty", "--fault", "--who", "Ben", "--why", "bearing", *common)
    assert "6 of these 6 recordings of a fault are alarms" in fault.stderr
    learned = harken("model", "update", model, place / "new", "--who", "Anna", "--why", "recipe", "--json", *common)
    version = json.loads(learned.stdout)
    assert (version["number"], version["kind"], version["who"]) == (3, "update", "Anna")
    assert version["effect"]["alarms_before"] == 12
    assert "known faults found: 6 of 6, before 6" in learned.stderr
    refused = harken("model", "update", model, place / "worse", "--who", "Anna", *common, code=2)
    assert "nearer to known faults" in refused.stderr
    assert "--force" in refused.stderr
    judged = harken("model", "diff", model, "--on", place / "new", "--on", place / "faulty", *common)
    assert "version 2: 18 of 18 recordings are alarms" in judged.stdout
    assert "alarm (" in judged.stdout
    as_json = json.loads(harken("model", "diff", model, 1, 3, "--on", place / "new", "--json", *common).stdout)
    assert as_json["counts"][0] == {"alarm": 12}
    harken("model", "rollback", model, "--why", "by mistake")
    shown = json.loads(harken("model", "show", model, "--json").stdout)
    assert [each["kind"] for each in shown["versions"]] == ["fit", "fault", "update", "rollback"]
    assert shown["versions"][-1]["who"]
    assert len(shown["known_faults"]) == 6
    harken("model", "rebaseline", model, place / "new", "--who", "Ben", "--why", "new motor", *common)
    text = harken("model", "show", model).stdout
    assert "known faults: 6, 6 of them from before maintenance" in text
    assert "rebaseline by Ben, " in text
    assert " new: new motor" in text


def test_fitting_over_a_model_with_versions_says_that_they_are_gone(place: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.harken"
    shutil.copytree(place / "m.harken", model)
    harken("model", "set-alarm", model, "--false-alarms", "2%")
    again = harken("fit", place / "normal", "-o", model, "--workers", "1")
    assert "versions, which are gone" in again.stderr
    assert "which are gone" not in harken("fit", place / "normal", "-o", model, "--workers", "1").stderr
    assert not (model / "versions").exists()


def test_what_cannot_be_done_says_what_to_do(place: Path) -> None:
    model = place / "m.harken"
    assert "--on RECORDINGS" in harken("model", "diff", model, code=2).stderr
    assert "harken model show" in harken("model", "rollback", model, "--to", "77", code=2).stderr
    both = harken("model", "update", model, place / "new", "--fault", "--force", code=2)
    assert "--force is for normal recordings" in both.stderr
    assert "no such" in harken("model", "update", place / "none", place / "new", code=2).stderr


def test_the_page_works_as_it_stands(place: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "learning.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```\n(.*?)^```", page, re.S | re.M)
    harken("fit", place / "normal", "-o", tmp_path / "pump.harken", "--false-alarms", "1%", "--workers", "1")
    shutil.copytree(place / "new", tmp_path / "new")
    shutil.copytree(place / "faulty", tmp_path / "faulty")
    record(tmp_path / "heard", range(120, 126), hum_hz=300.0)
    record(tmp_path / "after", range(130, 140), hum_hz=300.0)
    done = pasted(block, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "harken model" not in done.stdout
    kinds = [version.kind for version in list_versions(tmp_path / "pump.harken")]
    assert kinds == ["fit", "update", "fault", "rollback", "rebaseline"]

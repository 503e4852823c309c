"""The demo of the monitor: the alarm comes, somebody answers, the machine is normal again."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import called, harken
from harken.core.errors import HarkenError
from harken.service import demo


def test_the_demo_comes_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "EVERY_S", 0.05)
    monkeypatch.setattr(demo, "PATIENCE_S", 0.2)
    output = harken("monitor", "--demo", "--store", "plant", folder=tmp_path)
    said = output.stdout.split("\n")
    order = ["begins to leak", "the alarm came", "nobody has answered", "repaired", "is normal again"]
    assert [next(row for row, line in enumerate(said) if text in line) for text in order] == sorted(
        next(row for row, line in enumerate(said) if text in line) for text in order
    )
    assert "acknowledged by demo" in harken("monitor", "alarms", "--store", "plant", folder=tmp_path).stdout
    # No fault of the sensor, and one alarm.
    assert "Sensor" not in output.stderr
    assert output.stderr.count("pump: alarm. ") == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "recordings").mkdir()
    assert "holds other things" in called("monitor", "--demo", "--store", ".", folder=tmp_path).stderr
    with pytest.raises(HarkenError):
        demo.Demo(tmp_path, print)

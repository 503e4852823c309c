"""Systems of one name that come from several paths are told apart in tables and bags."""

from __future__ import annotations

from pathlib import Path

import pytest

from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.ensemble.members import read_members
from harken.evaluation.evaluate import evaluate
from harken.evaluation.system_names import distinct_names


def write(folder: Path, shift: float) -> Path:
    folder.mkdir(parents=True)
    rows = [
        f"section_00_{domain}_test_{condition}_{number:04d}.wav,{number * shift + (condition == 'anomaly')}"
        for domain in ("source", "target")
        for condition in ("normal", "anomaly")
        for number in range(3)
    ]
    (folder / "anomaly_score_fan_section_00_test.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_as_few_folders_as_tell_systems_apart(tmp_path: Path) -> None:
    paths = [write(tmp_path / run / "seed_0" / "dev", 0.1 * row) for row, run in enumerate("ab")]
    assert {one.system for one in evaluate(paths).results} == {"a/seed_0/dev", "b/seed_0/dev"}
    assert [one.name for one in read_members(paths)[0]] == ["a/seed_0/dev", "b/seed_0/dev"]
    # Folders of systems, whose own names tell them apart.
    above = [tmp_path / "a", tmp_path / "b"]
    assert {one.system for one in evaluate(above).results} == {"a/seed_0/dev", "b/seed_0/dev"}
    assert [one.name for one in read_members(above)[0]] == ["a/seed_0/dev", "b/seed_0/dev"]


def test_tables_of_one_folder_by_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "machine,section,file,domain,anomaly,mse\n"
    for name in ("monday", "tuesday"):
        rows = [f"fan,00,{row}.wav,{'source' if row < 6 else 'target'},{row % 2},{row}\n" for row in range(12)]
        (tmp_path / f"{name}.csv").write_text(head + "".join(rows))
    app(args=["evaluate", str(tmp_path / "monday.csv"), str(tmp_path / "tuesday.csv")], standalone_mode=False)
    printed = capsys.readouterr().out
    assert " monday.csv/mse " in printed
    assert " tuesday.csv/mse " in printed


def test_names_stay_where_they_differ_and_where_nothing_tells_them_apart(tmp_path: Path) -> None:
    x, y = tmp_path / "x", tmp_path / "y"
    assert distinct_names(["a", "b"], [x, x]) == ["a", "b"]
    assert distinct_names(["a", "a", "a"], [x, x, y]) == ["a", "a", "y/a"]
    assert distinct_names(["a", "a", "x/a"], [x, y, y]) == [f"{tmp_path.name}/x/a", "y/a", "y/x/a"]
    with pytest.raises(HarkenError, match="the member x is given 2 times"):
        read_members([write(x, 0.0), x])

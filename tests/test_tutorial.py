"""docs/tutorial.md: every command of the simulated way runs as it stands, those of the real way parse."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import yaml

from command_line import official_scores, pasted
from test_system_pages import check_command, commands

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
WAYS = ("Both", "GPU machine", "Plant")


def blocks(*ways: str) -> list[str]:
    """Code blocks of the ways, in the order of the page."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^\*\*([^*]+)\*\*\n\n```\n(.*?)^```$", text, re.S | re.M)
    assert len(found) == text.count("```\n") - len(found), "a block is of no way"
    assert {way for way, _ in found} == set(WAYS)
    return [block for way, block in found if way in ways]


def test_commands_are_ones_that_there_are() -> None:
    found = commands(PAGE)
    assert len(found) == sum(len(re.findall(r"^harken ", block, re.M)) for block in blocks(*WAYS))
    assert ["data", "download", "2025", "--root", "data"] in found
    for words in found:
        check_command(words)


def test_the_simulated_way(tmp_path: Path) -> None:
    printed = []
    for block in blocks("Both", "Plant"):
        done = pasted(block, tmp_path)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        printed.append(done.stdout + done.stderr)
    stages = [int(number) for number in re.findall(r"^(\d+) stages run", "\n".join(printed), re.M)]
    assert len(stages) == 3
    assert stages[1] > stages[2] == 0
    # The submission holds the scores of the run.
    with zipfile.ZipFile(tmp_path / "submission.zip") as file:
        names = file.namelist()
        meta = [yaml.safe_load(file.read(name)) for name in sorted(names) if name.endswith(".meta.yaml")]
    assert [one["submission"]["label"] for one in meta] == [f"Doe_EX_task2_{number}" for number in (1, 2, 3, 4)]
    assert sum("anomaly_score" in name for name in names) == 4 * 2
    assert official_scores(printed[-1])[-1:] == official_scores(printed[-3])[-1:]

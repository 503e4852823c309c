"""What is printed goes through any encoding, and says in a sentence where it cannot go; JSON is valid for all."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from command_line import HARKEN, harken
from conftest import hum
from harken.core.json_text import json_text
from harken.core.names import joined, shown

NAMES = ("\U0001f3ed 一.wav", "Lüfter.wav", "two\nlines.wav", "esc\x1b[31m.wav", os.fsdecode(b"L\xfcfter.wav"))


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.replace("harken", str(HARKEN), 1)], cwd=folder, capture_output=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"), env={**os.environ, **environment}, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streams")
    (root / "normal").mkdir()
    (root / "new").mkdir()
    for seed in range(4):
        sf.write(root / "normal" / f"{seed}.wav", hum(seed), 16_000)
    for seed, name in enumerate(NAMES):
        sf.write(os.fsencode(root / "new" / name), hum(20 + seed), 16_000)
    harken("fit", root / "normal", "-o", root / "m.harken")
    return root


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_encoding_takes_any_name(model: Path, encoding: str) -> None:
    done = shell("harken score new -m m.harken --json --report r.html", model, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in done.stdout.encode("ascii").splitlines()]
    assert sorted(Path(row["file"]).name for row in rows[:-1]) == sorted(NAMES)
    done = shell("harken score new -m m.harken", model, PYTHONIOENCODING=encoding)
    assert len(done.stdout.splitlines()) == len(NAMES)
    assert "\x1b" not in done.stdout
    assert "L\\xfcfter.wav" in done.stdout


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("harken score new -m m.harken > /dev/full", 2, "standard output: cannot be written (No space left on device)"),
        ("harken score new -m m.harken --json > /dev/full", 2, "standard output: cannot be written"),
        ("harken score new -m m.harken >&-", 2, "standard output: cannot be written (Bad file descriptor)"),
        ("harken data list > /dev/full", 2, "standard output: cannot be written"),
        ("harken --help > /dev/full", 2, "No space left on device"),
        ("harken fit normal -o x.harken >&-", 0, "learned from 4 recordings"),
        ("harken fit normal -o x.harken 2>&-", 0, ""),
        ("harken score none -m m.harken 2>&-", 2, ""),
        ("harken fit normal -o x.harken 2>/dev/full", 2, ""),
        ("harken fit normal -o /dev/full/x.harken", 2, "/dev/full/x.harken: cannot be written"),
        ("harken fit normal -o /proc/x.harken", 2, "/proc"),
        ("harken score new -m m.harken --report /proc/r.html", 2, "/proc/r.html"),
        ("harken data index normal -o /proc/c.parquet", 2, "/proc"),
        ("harken score new -m m.harken | head -1", 0, ""),
    ],
)
def test_what_cannot_be_written_is_a_sentence(model: Path, command: str, code: int, message: str) -> None:
    done = shell(command, model)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "unexpected" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_json_has_no_nan_and_is_ascii() -> None:
    data = {"a": [float("nan"), np.float64("inf"), 1.5], "ü": ("\udcfc", -float("inf")), "n": None}
    assert json_text(data) == '{"a": [null, null, 1.5], "\\u00fc": ["\\udcfc", null], "n": null}'


def test_names_are_shown_and_compared() -> None:
    assert [shown(name) for name in NAMES[2:]] == ["two\\nlines.wav", "esc\\x1b[31m.wav", "L\\xfcfter.wav"]
    assert joined("Lu\u0308fter") == "Lüfter"


def test_a_message_is_one_line_whatever_names_are_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "two\nlines"
    folder.mkdir()
    for seed in range(4):
        sf.write(os.fsencode(folder / f"{seed}\n.wav"), hum(seed), 16_000)
    (folder / "5\n.wav").touch()
    done = harken("fit", folder, "-o", folder / "m\n.harken")
    assert all(
        line.startswith(("set aside: ", "note: ", "learned ", "alarm ", "lasting "))
        for line in done.stderr.splitlines()
    )
    assert "two\\nlines" in done.stderr

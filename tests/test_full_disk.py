"""Where nothing can be written, a sentence names the file, the exit code is 2, and what was there before is intact."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import HARKEN, harken
from harken.core.files import write_atomically

#: no file may be larger than 1 KiB: as on a disk that is full, or beyond a quota. What Python compiles is not kept: it
#: would be cut off, and read by all others
FULL = "export PYTHONDONTWRITEBYTECODE=1; ulimit -f 1"


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.endswith(".lock")
    }


def refused(*words: object, folder: Path) -> str:
    """Messages of a command that finds the disk full."""
    command = " ".join([FULL, ";", str(HARKEN), *map(str, words)])
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done
    assert "unexpected" not in done.stderr
    assert "Traceback" not in done.stderr
    assert ".tmp" not in done.stderr
    return done.stderr


@pytest.fixture
def folder(make_clips: Callable[..., Path], tmp_path: Path) -> Path:
    make_clips("normal", 6)
    harken("fit", "normal", "-o", "m.harken", folder=tmp_path)
    return tmp_path


def test_models_reports_and_embeddings(folder: Path) -> None:
    before = content(folder)
    for words, name in (
        (("fit", "normal", "-o", "m.harken"), "m.harken"),
        (("fit", "normal", "-o", "n.harken"), "n.harken"),
        (("score", "normal", "-m", "m.harken", "--report", "r.html"), "r.html"),
        (("explain", "normal/clip_000.wav", "-m", "m.harken", "-o", "e.png"), "e.png"),
        (("model", "set-alarm", "m.harken", "--false-alarms", "5%"), "m.harken"),
    ):
        assert f"{name}" in refused(*words, folder=folder)
        after = content(folder)
        assert {file: after[file] for file in before} == before
        assert not [file for file in after if file.endswith(".tmp")]


def test_simulated_machines(tmp_path: Path) -> None:
    sizes = ("--train-source", 2, "--train-target", 1, "--test", 1, "--seconds", 1)
    assert "File too large" in refused("simulate", "plant", "--machine", "fan", *sizes, folder=tmp_path)
    assert not [file for file in content(tmp_path) if file.endswith(".tmp")]


def test_runs(plant: Path, tmp_path: Path) -> None:
    """The run goes on where it stopped once there is space."""
    words = ("run", "spectral_knn", "--data", plant, "--workspace", "w", "--profile", "tiny")
    said = refused(*words, folder=tmp_path)
    assert "File too large" in said
    assert str(tmp_path / "w") in said
    harken(*words, folder=tmp_path)


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "none" / "file"):
        with pytest.raises(OSError) as caught:
            write_atomically(path, b"x")
        assert os.fspath(caught.value.filename) == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]

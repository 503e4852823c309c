"""Workspaces that several runs use at once, and what killed ones leave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harken.bench.workspace import Workspace
from harken.core import workers
from ready_process import command

KEY = "0123456789" * 4


def leave(workspace: Workspace) -> list[Path]:
    """What killed runs leave, and what is none of it."""
    half = workspace.new(KEY)
    (half / "x").write_text("half")
    temporary = workspace.root / "runs" / "r" / ".results.json.0123abcd.tmp"
    temporary.parent.mkdir()
    temporary.write_text("half")
    old, new = (workspace.root / "store" / f".{name}.safetensors.0123abcd.tmp" for name in ("old", "new"))
    for file in (old, new):
        file.write_text("half")
    os.utime(old, (time.time() - 1000,) * 2)
    (workspace.scratch(KEY) / "checkpoint").write_text("to go on from")
    return [half, temporary, old, new]


def test_a_run_that_is_alone_removes_what_killed_ones_left(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    left = leave(workspace)
    with workspace.running():
        # What is written to the store at this moment may be that of another program.
        assert [path.exists() for path in left] == [False, False, False, True]
        assert (workspace.scratch(KEY) / "checkpoint").exists()
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == [KEY]


def test_nothing_is_removed_while_another_run_is_alive(tmp_path: Path) -> None:
    program = f"""
import sys
from harken.bench.workspace import Workspace
with Workspace({str(tmp_path)!r}).running():
    print("runs", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    workspace = Workspace(tmp_path)
    left = leave(workspace)
    with workspace.running():
        assert all(path.exists() for path in left)
    other.kill()
    other.wait()
    with workspace.running():
        assert not left[0].exists()


def test_an_object_in_use_is_not_replaced(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first, second = workspace.new(KEY), workspace.new(KEY)
    for made in (first, second):
        (made / "x").write_text("same")
    kept = workspace.keep(KEY, first, {})
    with (kept.folder / "x").open() as handle:
        inode = os.fstat(handle.fileno()).st_ino
        assert workspace.keep(KEY, second, {}) == kept
        assert os.stat(kept.folder / "x").st_ino == inode
    (kept.folder / "x").write_text("damaged")
    third = workspace.new(KEY)
    (third / "x").write_text("same")
    assert workspace.keep(KEY, third, {}) == kept
    assert (kept.folder / "x").read_text() == "same"


def test_several_runs_on_one_workspace(plant: Path, tmp_path: Path) -> None:
    words = ["run", "spectral_knn", "--data", plant, "--workspace", tmp_path / "w", "--workers", 1]
    runs = [command(*words, out=tmp_path / f"out{number}", err=tmp_path / "err") for number in range(2)]
    assert [run.wait() for run in runs] == [0, 0], (tmp_path / "err").read_text()
    assert (tmp_path / "out0").read_text() == (tmp_path / "out1").read_text() != ""
    assert not list((tmp_path / "w" / "scratch").iterdir())


def test_cores_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers.cores() >= 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert workers.cores() == 1

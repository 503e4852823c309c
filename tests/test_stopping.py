"""What the command line leaves behind: after Ctrl-C, under another umask, in messages."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import soundfile as sf

from conftest import hum
from harken.bench.workspace import Workspace
from harken.core.errors import AudioError, HarkenError
from harken.monitor.detector import Detector

HARKEN = Path(sys.executable).with_name("harken")


def _stopped(arguments: list[str], tmp_path: Path, until: Callable[[], bool]) -> tuple[int, str]:
    """Exit code and stderr of a process group that gets Ctrl-C once `until` holds."""
    process = subprocess.Popen(
        [HARKEN, *arguments], cwd=tmp_path, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        # What runs in a shell's background ignores Ctrl-C, and so would the program.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not until() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("verb", ["fit", "score", "run"])
def test_ctrl_c_says_that_nothing_is_lost(verb: str, tmp_path: Path) -> None:
    machine = tmp_path / "plant" / "fan"
    for split, count in (("train", 300), ("test", 20)):
        folder = machine / split
        folder.mkdir(parents=True)
        for number in range(count):
            condition = "normal" if split == "train" or number % 2 else "anomaly"
            sound = hum(number, seconds=0.5)
            sf.write(folder / f"section_00_source_{split}_{condition}_{number:04d}_v_1.wav", sound, 16_000)
    store = tmp_path / "store"
    arguments = {
        "fit": ["fit", str(machine / "train"), "-o", str(tmp_path / "m.harken"), "--store", str(store)],
        "score": ["score", str(machine / "train"), "-m", str(tmp_path / "n.harken"), "--store", str(store)],
        "run": ["run", "spectral_knn", "--data", str(tmp_path / "plant"), "--workspace", str(tmp_path)],
    }[verb] + ["--workers", "2"]
    if verb == "score":
        Detector.fit(sorted((machine / "train").iterdir())[:5], workers=0).save(tmp_path / "n.harken")
    code, err = _stopped(arguments, tmp_path, lambda: any(store.rglob("*.safetensors")))
    assert code == 130, err
    assert err.splitlines()[-1] == "harken: stopped; nothing that was already written is lost"
    assert "Traceback" not in err
    assert not (tmp_path / "m.harken").exists()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list child processes")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_workers_end_with_the_program(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    """Also where it could not tell them to; the next run removes what is left."""
    machine = tmp_path / "plant" / "fan"
    for split, count in (("train", 60), ("test", 6)):
        (machine / split).mkdir(parents=True)
        for number in range(count):
            name = f"section_00_source_{split}_normal_{number:04d}_v_1.wav"
            sf.write(machine / split / name, hum(number, seconds=2.0), 16_000)
    workspace = tmp_path / "w"
    command = [HARKEN, "run", "spectral_knn", "--data", tmp_path / "plant", "--workspace", workspace, "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(workspace.rglob("*.safetensors")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(sent)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == code, err
    assert children
    while any(Path(f"/proc/{pid}/fd").exists() and _runs(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_runs(pid) for pid in children)
    assert list((workspace / "scratch").glob("*.*.????????")) or sent == signal.SIGTERM
    (workspace / "runs" / ".x.json.0123abcd.tmp").write_text("half")
    with Workspace(workspace).running():
        assert not list((workspace / "scratch").glob("[0-9a-f]*.*.*"))
        assert not list((workspace / "runs").glob(".*.tmp"))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_files_and_folders_have_the_rights_that_the_user_wants(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_clips("normal", 4)
    before = os.umask(0o077)
    try:
        Detector.fit(folder, workers=0, store=tmp_path / "store").save(tmp_path / "m.harken")
    finally:
        os.umask(before)
    made = [tmp_path / "m.harken", *(tmp_path / "m.harken").rglob("*"), *(tmp_path / "store").rglob("*")]
    assert len(made) > 6
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_errors_end_in_one_full_stop_also_when_they_quote_each_other() -> None:
    inner = AudioError("is silent.", file="a.wav", next_step="Check the microphone.")
    assert str(inner) == "a.wav: is silent. Check the microphone."
    outer = HarkenError(f"nothing can be used: {inner}", next_step=str(inner))
    assert str(outer) == (
        "nothing can be used: a.wav: is silent. Check the microphone. a.wav: is silent. Check the microphone."
    )
    assert str(HarkenError(str(inner))) == str(inner)
    assert str(pickle.loads(pickle.dumps(outer))) == str(outer)

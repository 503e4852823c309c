"""What the user names for a result replaces no recording, device or pipe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from command_line import harken
from harken.audio.segments import Form, cut
from harken.core.errors import HarkenError
from harken.separation.recordings import separate_files


@pytest.fixture
def folder(make_clips: Callable[..., Path]) -> Path:
    return make_clips("normal", 8)


@pytest.mark.parametrize("verb", ["fit", "score"])
def test_a_report_replaces_no_recording_and_no_pipe(folder: Path, tmp_path: Path, verb: str) -> None:
    (tmp_path / "clip.wav").write_bytes(sorted(folder.glob("*.wav"))[0].read_bytes())
    before = (tmp_path / "clip.wav").read_bytes()
    os.mkfifo(tmp_path / "pipe.html")
    options = ["-o", str(tmp_path / "m.harken")]
    if verb == "score":
        harken("fit", folder, *options)
        options = ["-m", options[1]]
    for name, message in (("clip.wav", "is no name of a page"), ("pipe.html", "is not a regular file")):
        done = harken(verb, folder, *options, "--report", tmp_path / name, code=2)
        assert message in done.stderr
    assert (tmp_path / "clip.wav").read_bytes() == before
    assert (tmp_path / "pipe.html").is_fifo()


def test_separated_files_replace_no_recording(folder: Path, tmp_path: Path) -> None:
    first, second = sorted(folder.glob("*.wav"))[:2]
    shutil.copy(first, tmp_path / "pump.wav")
    shutil.copy(second, tmp_path / "pump_machine.wav")
    before = (tmp_path / "pump_machine.wav").read_bytes()
    with pytest.raises(HarkenError, match="would be overwritten"):
        separate_files(sorted(tmp_path.glob("*.wav")), None, tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "pump_machine.wav").read_bytes() == before


def test_separated_files_need_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("text")
    done = harken("separate", folder, "-m", tmp_path / "no.safetensors", "-o", tmp_path / "taken", code=2)
    assert "is a file" in done.stderr


@pytest.mark.parametrize("rest", [0, 5, 200, 999, 1000, 9999])
def test_the_end_of_a_recording_is_heard(tmp_path: Path, rest: int) -> None:
    """All but what may be a rounded length: a hundredth of a segment."""
    frames = 30_000 + rest
    sf.write(tmp_path / "a.wav", np.zeros(frames), 1000)
    segments = cut(tmp_path / "a.wav", Form(1000, 1, frames, frames), 10.0, covering=True)
    heard = max(segment.start + segment.frames for segment in segments)
    assert frames - heard <= 100
    assert len(segments) == 3 + (rest > 100)

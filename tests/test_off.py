"""Recordings of the machine switched off beside a loud factory; learned recordings in other containers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from command_line import harken
from harken.core.errors import HarkenError
from harken.monitor.detector import Detector


def factory(seed: int, samples: int = 16_000) -> np.ndarray:
    """(S,) a neighbouring machine with hammering, nearly as loud as the one that is listened to."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.normal(size=samples + 7), np.ones(8) / 8, "valid")
    return (0.12 * noise * (1 + 0.3 * np.sin(2 * np.pi * 5 * np.arange(samples) / 16_000))).astype(np.float32)


@pytest.fixture
def folders(make_clips: Callable[..., Path], tmp_path: Path) -> Path:
    make_clips("normal", 20)
    make_clips("faulty", 5, 100, fault=True)
    for name, count, first in (("off", 8, 200), ("later", 5, 300)):
        (tmp_path / name).mkdir()
        for number in range(count):
            sf.write(tmp_path / name / f"off_{number}.wav", factory(first + number), 16_000)
    return tmp_path


def kinds(model: Path | str, folder: str, root: Path) -> list[str]:
    done = harken("score", folder, "-m", model, "--json", "--order", "none", folder=root)
    return [row["verdict"] for row in map(json.loads, done.stdout.splitlines()) if row["record"] == "recording"]


def test_off_is_reported_as_off_and_faults_still_ring(folders: Path) -> None:
    harken("fit", "normal", "-o", "without.harken", "--false-alarms", "5%", folder=folders)
    assert "alarm" in kinds("without.harken", "later", folders)
    done = harken("fit", "normal", "--off", "off", "-o", "m.harken", "--false-alarms", "5%", folder=folders)
    assert "8 recordings of the machine switched off" in done.stderr
    assert kinds("m.harken", "later", folders) == ["not judged"] * 5
    assert "recordings of the machine switched off" in harken("score", "later", "-m", "m.harken", folder=folders).stdout
    assert kinds("m.harken", "faulty", folders) == kinds("without.harken", "faulty", folders)
    assert "alarm" in kinds("m.harken", "faulty", folders)
    assert kinds("m.harken", "normal", folders) == kinds("without.harken", "normal", folders)


def test_what_cannot_be_told_apart_is_said(folders: Path) -> None:
    for number in range(4):
        (folders / "normal" / f"clip_00{number}.wav").rename(folders / "off" / f"clip_00{number}.wav")
    done = harken("fit", "normal", "--off", "off", "-o", "m.harken", folder=folders)
    assert "can hardly be told whether the machine is on" in done.stderr
    with pytest.raises(HarkenError, match="as normal and as switched off"):
        Detector.fit(folders / "normal", off=folders / "normal" / "clip_005.wav", workers=0)
    with pytest.raises(HarkenError, match="at least 3 are needed"):
        Detector.fit(folders / "normal", off=folders / "later" / "off_0.wav", workers=0)


def test_a_learned_recording_is_known_in_another_container(folders: Path) -> None:
    detector = Detector.fit(folders / "normal", workers=0)
    clip = folders / "normal" / "clip_003.wav"
    samples, rate = sf.read(clip, dtype="int16")
    sf.write(folders / "copy.flac", samples, rate)
    sf.write(folders / "louder.wav", (samples * 0.9).astype(np.int16), rate)
    copy, own, louder = (detector.score(folders / name) for name in ("copy.flac", clip, "louder.wav"))
    assert (copy.score, copy.event_score, copy.warnings) == (own.score, own.event_score, own.warnings)
    assert "learned from" in copy.warnings[0]
    assert not louder.warnings


def test_what_is_set_aside_for_one_reason_is_said_once(folders: Path) -> None:
    for number in range(7):
        (folders / "normal" / f"broken_{number}.wav").touch()
    done = harken("fit", "normal", "-o", "m.harken", folder=folders)
    (line,) = [line for line in done.stderr.splitlines() if "is empty" in line]
    assert line.endswith("the file is empty (7 recordings)")
    assert "and 2 more" in line

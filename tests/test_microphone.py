"""A microphone, where a sound card can be had: PulseAudio's null sink, whose monitor is one."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from harken.service.feed import Feed
from harken.service.judging import WindowJudge
from harken.service.records import Block
from harken.service.set_up.choices import microphones
from harken.service.set_up.set_up import SetUp
from harken.service.sources.base import SourceForm
from harken.service.tap import Tap
from harken.service.windows import Windower
from listening import RATE, detector_in, humming, scores_of_files
from peers import wait_for

pytest.importorskip("sounddevice", reason="sounddevice or PortAudio is not installed", exc_type=OSError)
from harken.service.sources.microphone import MicrophoneSource, input_devices


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Socket of a PulseAudio server with one sink, whose monitor is the default microphone."""
    if shutil.which("pulseaudio") is None or shutil.which("pacat") is None:
        pytest.skip("PulseAudio is not installed")
    socket = tmp_path / "server.socket"
    for name, value in (("XDG_RUNTIME_DIR", tmp_path), ("HOME", tmp_path), ("PULSE_SERVER", f"unix:{socket}")):
        monkeypatch.setenv(name, str(value))
    server = subprocess.Popen(
        [
            "pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes",
            f"--load=module-native-protocol-unix socket={socket} auth-anonymous=1",
            f"--load=module-null-sink sink_name=machine rate={RATE} channels=1 format=s16le",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not socket.exists() and time.monotonic() < until:
        time.sleep(0.05)
    monkeypatch.setenv("PULSE_SOURCE", "machine.monitor")
    if not socket.exists() or "pulse" not in _devices():
        server.terminate()
        server.wait()
        pytest.skip("PulseAudio does not start here, or ALSA does not know of it")
    yield socket
    server.terminate()
    server.wait()


def _devices() -> list[str]:
    import sounddevice

    sounddevice._terminate()
    sounddevice._initialize()
    return input_devices()


def test_a_microphone_is_scored_as_files_are(card: Path, tmp_path: Path) -> None:
    (tmp_path / "normal").mkdir()
    (tmp_path / "files").mkdir()
    detector = detector_in(tmp_path / "normal")
    sound = humming(2.0)
    expected = scores_of_files(detector, sound, tmp_path / "files")
    source = MicrophoneSource("pulse", SourceForm(RATE, 1))
    stop = threading.Event()
    blocks: list[Block] = []
    player: subprocess.Popen[bytes] | None = None
    # What is played before the card has settled is not heard in full.
    played = np.concatenate([humming(1.0, 90), sound, np.zeros(RATE)])
    until = time.monotonic() + 60
    for block in source.listen(stop):
        if isinstance(block, Block):
            blocks.append(block)
        if player is None and blocks:
            command = ["pacat", "--playback", "--device=machine", f"--rate={RATE}", "--channels=1", "--format=s16le"]
            player = subprocess.Popen(command, stdin=subprocess.PIPE)
            data = (played * 2**15).astype("<i2").tobytes()
            threading.Thread(target=player.communicate, args=(data,), daemon=True).start()
        if (player is not None and player.poll() is not None) or time.monotonic() > until:
            stop.set()
    heard_S = np.concatenate([block.samples_CS[0] for block in blocks])
    first = sound[:32].astype(np.float32)
    begins = np.flatnonzero(np.all(np.lib.stride_tricks.sliding_window_view(heard_S, 32) == first, axis=1))
    assert len(begins) == 1
    assert all(later.position == block.end_position for block, later in pairwise(blocks))
    windower, judge = Windower(1.0), WindowJudge("pump", detector)
    begin = int(begins[0])
    windows = windower.push(Block(heard_S[None, begin:], RATE, begin, blocks[0].start))
    assert [heard.verdict.score for window in windows for heard in judge.hear(window)][:2] == expected


def test_a_microphone_that_is_lost_is_begun_again(card: Path) -> None:
    feed = Feed(
        MicrophoneSource("pulse", SourceForm(RATE, 1), patience_s=1.0), [tap := Tap("pump", 0.2)], soonest_s=0.1
    )
    feed.start()
    assert tap.get(10) is not None
    subprocess.run(["pactl", "unload-module", "module-null-sink"], check=True)
    subprocess.run(["pactl", "load-module", "module-null-sink", "sink_name=machine"], check=True, capture_output=True)
    until = time.monotonic() + 60
    while feed.status().restarts < 1 and time.monotonic() < until:
        tap.get(0.05)
    while tap.get(0.05) is not None:
        pass
    again = tap.get(10)
    assert feed.stop()
    assert again is not None
    assert feed.status().restarts >= 1


def test_a_microphone_that_is_not_there_says_which_are() -> None:
    feed = Feed(MicrophoneSource("no such device", SourceForm(RATE)), [Tap("pump", 1.0)], soonest_s=10)
    feed.start()
    until = time.monotonic() + 60
    while feed.status().state != "waiting" and time.monotonic() < until:
        time.sleep(0.02)
    feed.stop()
    assert "cannot be opened" in feed.status().error
    assert "There are" in feed.status().error


def test_a_microphone_is_set_up_and_recorded(card: Path, tmp_path: Path) -> None:
    set_up = SetUp(tmp_path / "plant", segment_s=0.5)
    try:
        assert "pulse" in microphones()
        set_up.choose("pump", "microphone", "pulse")
        with subprocess.Popen(["pacat", "--raw", f"--rate={RATE}", "--channels=1", "--format=s16le"],
                              stdin=subprocess.PIPE) as player:  # fmt: skip
            assert player.stdin is not None
            player.stdin.write((humming(8.0) * 32767).astype("<i2").tobytes())
            player.stdin.flush()
            wait_for(lambda: (heard := set_up.state().heard) and heard.level_db > -40)
            assert set_up.state().heard is not None
            set_up.record(3)
            wait_for(lambda: set_up.state().ended == "done", 60)
            player.kill()
        files = sorted((tmp_path / "plant" / "normal" / "pump").iterdir())
        assert [sf.info(file).duration for file in files] == [0.5] * 3
        assert {file.suffix for file in files} == {".flac"}
    finally:
        set_up.close()

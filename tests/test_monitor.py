"""`harken monitor` from a folder to the store, as it is started, stopped and asked."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from command_line import HARKEN, called, harken
from conftest import hum
from harken.core.errors import HarkenError
from harken.monitor.detector import Detector
from harken.monitor.verdict import Verdict
from harken.service.missed import UnjudgedWindows
from harken.service.records import HeardWindow, Window
from peers import free_port, receiver, wait_for
from ready_process import command


@pytest.fixture(scope="module")
def model(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    def make(folder: Path) -> None:
        (folder / "normal").mkdir()
        for index in range(40):
            sf.write(folder / "normal" / f"{index:03d}.wav", hum(index), 16_000)
        Detector.fit(folder / "normal", workers=0).save(folder / "pump.harken")

    return once("monitored_pump", make) / "pump.harken"


def recordings(folder: Path, first: int, count: int, **options: object) -> None:
    """Written aside and renamed, as a recorder does."""
    folder.mkdir(exist_ok=True)
    for index in range(first, first + count):
        aside = folder / f".{index}.wav.tmp"
        sf.write(aside, hum(1000 + index, **options), 16_000, format="WAV")  # type: ignore[arg-type]
        aside.rename(folder / f"{index:04d}.wav")


def windows(output: str) -> list[dict[str, object]]:
    return [row for row in map(json.loads, output.splitlines()) if row["record"] == "window"]


def test_a_folder_is_judged_once(tmp_path: Path, model: Path) -> None:
    recordings(tmp_path / "in", 0, 3)
    words = ["monitor", "in", "-m", model, "--once", "--json", "--page", "0"]
    first = windows(harken(*words, folder=tmp_path).stdout)
    assert [Path(str(row["file"])).name for row in first] == ["0000.wav", "0001.wav", "0002.wav"]
    scored = [
        json.loads(row) for row in harken("score", "in", "-m", model, "--json", folder=tmp_path).stdout.splitlines()
    ]
    assert [row["score"] for row in first] == [row["score"] for row in scored if row["record"] == "recording"]
    # The next one takes up where this one ended.
    recordings(tmp_path / "in", 3, 1)
    (later,) = windows(harken(*words, folder=tmp_path).stdout)
    assert later["number"] == 3
    status = json.loads(harken("monitor", "status", "--json", folder=tmp_path).stdout)
    assert [machine["machine"] for machine in status["machines"]] == ["pump"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "a source gave no sound: {folder}/none: the folder cannot be read"),
        (["in", "--store", "postgresql://harken@127.0.0.1:9/none"], "2 windows and messages could not be stored. See"),
    ],
)
def test_what_could_not_be_done_at_all_is_an_error(words: list[str], said: str, tmp_path: Path, model: Path) -> None:
    recordings(tmp_path / "in", 0, 2)
    if "--store" in words:
        pytest.importorskip("psycopg")
    done = harken("monitor", *words, "-m", model, "--once", "--page", "0", folder=tmp_path, code=2)
    assert said.format(folder=tmp_path) in done.stderr


def test_why_a_recording_was_not_judged_is_in_the_status(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    sf.write(tmp_path / "in" / "slow.wav", hum(7, rate=8_000), 8_000)
    words = ("monitor", "in", "-m", model, "--once", "--page", "0")
    done = harken(*words, folder=tmp_path, code=2)
    assert "pump: no window could be judged: was recorded at 8000 Hz" in done.stderr
    assert "not judged (was recorded at 8000 Hz" in harken("monitor", "status", folder=tmp_path).stdout
    recordings(tmp_path / "in", 1, 1)
    sf.write(tmp_path / "in" / "slower.wav", hum(7, rate=8_000), 8_000)
    assert "machine pump: not judged: 1 of 2 windows; was recorded at 8000 Hz" in harken(*words, folder=tmp_path).stderr


@pytest.mark.parametrize(
    ("verdict", "usable"),
    [
        (Verdict(Path("short.wav"), not_judged="lasts 0.6 s", unheard="short"), False),
        (Verdict(Path("damaged.wav"), error=HarkenError("cannot be decoded")), False),
        (Verdict(Path("off.wav"), score=3.0, not_judged="sounds like the machine switched off", unheard="off"), True),
        (Verdict(Path("dead.wav"), score=3.0, not_judged="its microphone is dead", unheard="sensor"), True),
    ],
)
def test_windows_that_say_nothing_are_an_error_unless_something_is_said_of_them(verdict: Verdict, usable: bool) -> None:
    windows = UnjudgedWindows()
    window = Window(np.zeros((1, 8), np.float32), 16_000, 0, 0, datetime(2026, 3, 1, tzinfo=UTC))
    windows.note(HeardWindow("pump", window, verdict, "m"))
    assert (windows.error is None) == usable


@pytest.mark.parametrize(
    ("data", "words", "said"),
    [
        (b"hello", [], "a source gave no sound: standard input: ended before any sound came"),
        (b"", ["--rate", 16000], "a source gave no sound: standard input: ended before any sound came"),
        (
            np.full(48_000, np.nan, "<f4").tobytes(),
            ["--rate", 16000, "--sample-format", "FLOAT_LE"],
            "are NaN or infinite",
        ),
    ],
)
def test_standard_input_without_sound_is_an_error(
    data: bytes, words: list[str | int], said: str, tmp_path: Path, model: Path
) -> None:
    arguments = [HARKEN, "monitor", "-", "-m", model, "--page", "0", *words]
    done = subprocess.run([*map(str, arguments)], input=data, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert said in done.stderr.decode().splitlines()[-1]
    assert b"Traceback" not in done.stderr


def test_standard_input_is_judged(tmp_path: Path, model: Path) -> None:
    sound = (hum(7, seconds=3.0) * 32767).astype("<i2")
    words = [HARKEN, "monitor", "-", "-m", model, "--rate", "16000", "--json"]
    done = subprocess.run(words, input=sound.tobytes(), capture_output=True, cwd=tmp_path, check=True)
    rows = windows(done.stdout.decode())
    assert [row["number"] for row in rows] == [0, 1, 2]
    sf.write(tmp_path / "middle.wav", sound[16_000:32_000], 16_000)
    expected = Detector.load(model).score(tmp_path / "middle.wav")
    assert rows[1]["score"] == expected.score


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["in"], "needs a model"),
        ([], "Usage"),
        (["in", "-m", "none.harken"], "none.harken"),
        (["in", "--config", "c.yaml", "-m", "m"], "needs a source, --config, --setup or --demo"),
        (["-", "-m", "MODEL", "--rate", "8000"], "8000 Hz"),
        (["ack", "pump"], "there is no store"),
        (["in", "-m", "MODEL", "--hop", "soon"], "hop"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    tmp_path: Path, model: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.setattr(sys, "stdin", (tmp_path / "in.raw").open("w+"))
    done = called("monitor", *(model if word == "MODEL" else word for word in words), folder=tmp_path)
    assert done.returncode in ((0, 2) if not words else (2,))
    assert said in done.stderr + done.stdout
    assert not (tmp_path / "harken-monitor").exists()


def test_the_page_shows_what_is_heard(tmp_path: Path, model: Path) -> None:
    recordings(tmp_path / "in", 0, 3)
    port = free_port()
    words = ["monitor", "in", "-m", model, "--page", port]
    running = command(*words, folder=tmp_path, err=tmp_path / "err")
    try:

        def machine() -> dict[str, object] | None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/machines", timeout=60) as answer:
                    (seen,) = json.load(answer)
            except OSError:
                return None
            return seen if seen["heard"] is not None else None

        seen = wait_for(machine, seconds=90)
        assert (seen["machine"], seen["monitor"]) == ("pump", "monitor")
        assert seen["score"] is not None
        # The last sound and normal sound can be heard.

        def sounds() -> list[bytes] | None:
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/machines/{seen['key']}", timeout=60).read().decode()
            found = [
                urllib.request.urlopen(f"http://127.0.0.1:{port}{place}", timeout=60).read(4)
                for place in re.findall(r'src="(/evidence/[^"]+/sound)"', page)
            ]
            return found if len(found) > 1 else None

        assert wait_for(sounds, seconds=60) == [b"fLaC", b"fLaC"]
        assert b"pump" in urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    assert f"page: http://127.0.0.1:{port}" in (tmp_path / "err").read_text()


PLANT = """\
monitor: hall
store: store/plant.db
page: null
sources:
  pumps: {{kind: folder, path: in, settle_s: 0.2}}
machines:
  pump: {{source: pumps, model: {model}}}
http: {{port: {port}}}
"""


class Running:
    """`harken monitor --config plant.yaml` in a process."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        words = ["monitor", "--config", "plant.yaml", "--json", "--log", "json", *options]
        self.output = folder / "out"
        self.output.touch()
        self.log.touch()
        self.process = command(*words, folder=folder, out=self.output, err=self.log)

    @property
    def windows(self) -> list[dict[str, object]]:
        return windows(self.output.read_text())

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def plant_folder(tmp_path: Path, model: Path) -> Path:
    recordings(tmp_path / "in", 0, 2)
    (tmp_path / "plant.yaml").write_text(PLANT.format(model=model, port=free_port()))
    return tmp_path


def test_it_ends_on_sigterm_and_goes_on_after_a_kill(plant_folder: Path) -> None:
    running = Running(plant_folder)
    try:
        wait_for(lambda: len(running.windows) == 2)
        assert running.end() == 0
    finally:
        running.process.kill()
    status = json.loads(harken("monitor", "status", "--json", "--config", "plant.yaml", folder=plant_folder).stdout)
    assert (status["runs"], status["stopped_by"]) == (False, "SIGTERM"), "at once, not after some missing signs"
    assert all(json.loads(row)["level"] for row in running.log.read_text().splitlines())
    recordings(plant_folder / "in", 2, 2)
    running = Running(plant_folder)
    try:
        wait_for(lambda: len(running.windows) == 4)
        running.end(signal.SIGKILL)
        recordings(plant_folder / "in", 4, 1)
    finally:
        running.process.kill()
    running = Running(plant_folder)
    try:
        wait_for(lambda: len(running.windows) == 5)
        status = json.loads(harken("monitor", "status", "--config", "plant.yaml", "--json", folder=plant_folder).stdout)
        assert status["runs"]
        second = called("monitor", "--config", "plant.yaml", folder=plant_folder)
        assert (second.returncode, "a monitor that runs" in second.stderr) == (2, True)
        assert status["machines"][0]["machine"] == "pump"
        assert running.end(signal.SIGINT) == 0
    finally:
        running.process.kill()
    assert [row["number"] for row in running.windows] == [0, 1, 2, 3, 4]


def test_an_alarm_is_raised_acknowledged_and_over(plant_folder: Path) -> None:
    """From sound to a webhook, and from the command line back."""
    with receiver() as peer:
        config = plant_folder / "plant.yaml"
        sink = f"sinks:\n  hook: {{kind: webhook, url: {peer.url}, messages: [alarm]}}\n"
        config.write_text(config.read_text() + sink)
        running = Running(plant_folder)
        try:
            recordings(plant_folder / "in", 2, 8, fault=True)
            wait_for(lambda: peer.messages)
            raised = peer.messages[0]
            assert (raised["event"], raised["state"], raised["machine"]) == ("raised", "unacknowledged", "pump")
            assert "3.0 kHz" in raised["why"]
            assert all(Path(file).is_file() for file in raised["evidence_files"] if file.endswith("flac"))
            asked = ["--config", "plant.yaml", "--by", "Ada", "--note", "bearing ordered"]
            assert "acknowledged" in harken("monitor", "ack", "pump", *asked, folder=plant_folder).stdout
            recordings(plant_folder / "in", 14, 40)
            wait_for(lambda: len(peer.messages) == 3, 90.0)
            assert [message["event"] for message in peer.messages] == ["raised", "acknowledged", "returned"]
            assert peer.messages[1]["person"] == "Ada"
            assert {message["alarm"] for message in peer.messages} == {raised["alarm"]}
            shown = harken("monitor", "alarms", "--config", "plant.yaml", folder=plant_folder).stdout
            assert shown.startswith("pump: over")
            assert "acknowledged by Ada" in shown
            shelved = harken("monitor", "shelve", "pump", "--hours", "2", *asked, folder=plant_folder).stdout
            assert "shelved until" in shelved
            harken("monitor", "out-of-service", "pump", *asked, folder=plant_folder)

            def status() -> str:
                return harken("monitor", "status", "--config", "plant.yaml", folder=plant_folder).stdout

            assert "pump: out of service" in status()
            wait_for(lambda: "sink hook: 0 messages waiting" in status())
            wrong = called("monitor", "ack", "pmup", "--config", "plant.yaml", folder=plant_folder)
            assert (wrong.returncode, "Did you mean pump" in wrong.stderr) == (2, True)
            assert running.end() == 0
        finally:
            running.process.kill()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of Unix")
def test_the_configuration_is_read_again_on_sighup(plant_folder: Path, model: Path) -> None:
    file = plant_folder / "plant.yaml"
    good = file.read_text()
    running = Running(plant_folder)
    try:
        wait_for(lambda: len(running.windows) == 2)
        file.write_text(good.replace("kind: folder", "kind: foldr"))
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: running.said("Did you mean folder"))
        assert running.said("the one before it stays")
        recordings(plant_folder / "in", 2, 1)
        wait_for(lambda: len(running.windows) == 3)
        # Another machine comes; the first goes on without hearing anything twice.
        recordings(plant_folder / "fans", 0, 1)
        more = good.replace("machines:", "  fans: {kind: folder, path: fans, settle_s: 0.2}\nmachines:")
        file.write_text(more.replace("http:", f"  fan: {{source: fans, model: {model}}}\nhttp:"))
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: any(row["machine"] == "fan" for row in running.windows))
        # And the first one is no longer listened to.
        shutil.copy(file, plant_folder / "both.yaml")
        file.write_text(
            good.replace("pumps: {kind: folder, path: in", "fans: {kind: folder, path: fans").replace(
                "pump: {source: pumps", "fan: {source: fans"
            )
        )
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: running.log.read_text().count("was read again") == 2)
        recordings(plant_folder / "in", 3, 1)
        recordings(plant_folder / "fans", 1, 1)
        wait_for(lambda: sum(row["machine"] == "fan" for row in running.windows) == 2)
        assert running.end() == 0
    finally:
        running.process.kill()
    assert [row["number"] for row in running.windows if row["machine"] == "pump"] == [0, 1, 2]


def test_the_unit_of_systemd_is_one(plant_folder: Path) -> None:
    text = harken("monitor", "install", "--config", "plant.yaml", folder=plant_folder).stdout
    assert f"monitor --config {plant_folder}/plant.yaml" in text
    assert "NoNewPrivileges=yes" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = plant_folder / "harken-hall.service"
    harken("monitor", "install", "--config", "plant.yaml", "-o", unit, folder=plant_folder)
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    complaints = [row for row in done.stderr.splitlines() if unit.name in row]
    assert not complaints, "\n".join(complaints)


def test_metrics_follow_the_conventions_of_prometheus(plant_folder: Path) -> None:
    import urllib.request

    port = (plant_folder / "plant.yaml").read_text().rpartition("port: ")[2].strip(" }\n")
    running = Running(plant_folder)
    try:
        wait_for(lambda: len(running.windows) == 2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read()
        assert b'harken_windows_total{machine="pump",verdict="normal"}' in text
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert json.loads(answer.read())["sources"] == {"pumps": "running"}
        running.end()
    finally:
        running.process.kill()
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()

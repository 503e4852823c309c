"""A machine that is set up step by step: what is recorded, learned and written, and what nobody can ask for."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
import soundfile as sf
import sqlalchemy as sa

from command_line import HARKEN, called
from conftest import hum
from harken.core.errors import HarkenError
from harken.monitor.detector import Detector
from harken.page.server import PageServer
from harken.page.set_up import limits
from harken.page.settings import PageSettings
from harken.page.texts import texts
from harken.service.configuration.read import read_configuration
from harken.service.records import Block
from harken.service.set_up.choices import machine_name, source_entry
from harken.service.set_up.enough import RecordedFiles
from harken.service.set_up.fit_run import FitRun
from harken.service.set_up.fitting import FitRequest
from harken.service.set_up.folder import SetUpFolder
from harken.service.set_up.plant_file import literal, with_machine
from harken.service.set_up.recorder import NormalRecorder
from harken.service.set_up.run import SetUpRun
from harken.service.set_up.set_up import SetUp
from harken.service.store import tables
from harken.service.store.overview import overview
from harken.service.store.store import Store
from peers import free_port, wait_for
from test_page import TOKEN, Browser

BEGIN = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[SetUp]:
    made = SetUp(tmp_path / "plant")
    (tmp_path / "plant" / "recordings").mkdir()
    yield made
    made.close()


def block(second: int, samples: np.ndarray) -> Block:
    return Block(samples[None].astype(np.float32), 16_000, 16_000 * second, BEGIN + timedelta(seconds=second))


def written(folder: Path, count: int, first: int = 0, name: str = "pump_20260302_12{:02d}{:02d}.wav") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(first, first + count):
        sf.write(folder / name.format(row // 60, row % 60), hum(row), 16_000)


# ---- recording -----------------------------------------------------------------------------------------------


def test_sound_becomes_recordings_with_their_times_in_their_names(tmp_path: Path) -> None:
    recorder = NormalRecorder(tmp_path / "normal", most=2, seconds=1.5)
    for second in range(6):
        recorder.hear(block(second, hum(second)))
    assert (recorder.kept, recorder.ended) == (2, "done")
    files = sorted((tmp_path / "normal").iterdir())
    assert [file.name for file in files] == ["20260302_120000.000Z.flac", "20260302_120001.500Z.flac"]
    heard, rate = sf.read(files[0])
    assert rate == 16_000
    assert heard == pytest.approx(np.concatenate([hum(0), hum(1)[:8000]]), abs=1e-6)


def test_sound_that_cannot_be_learned_from_is_not_kept(tmp_path: Path) -> None:
    recorder = NormalRecorder(tmp_path / "normal", most=9, seconds=1.0)
    for second, samples in enumerate([np.zeros(16_000), np.clip(hum(1) * 40, -0.9, 0.9), hum(2)]):
        recorder.hear(block(second, samples))
    assert recorder.kept == 1
    assert recorder.unfit == {"silent": 1, "clipped": 1}


def test_one_recording_now_and_then(tmp_path: Path) -> None:
    recorder = NormalRecorder(tmp_path / "normal", most=9, seconds=1.0, every_s=3.0)
    for second in range(7):
        recorder.hear(block(second, hum(second)))
    assert [file.name[9:15] for file in sorted((tmp_path / "normal").iterdir())] == ["120000", "120003", "120006"]


def test_sessions_and_days_are_counted(tmp_path: Path) -> None:
    assert RecordedFiles().of(tmp_path / "none").recordings == 0
    for day, hour in ((2, 12), (2, 18), (4, 7)):
        written(tmp_path, 4, name=f"202603{day:02d}_{hour:02d}{{:02d}}{{:02d}}.wav")
    recorded = RecordedFiles().of(tmp_path)
    assert (recorded.recordings, recorded.sessions, recorded.days) == (12, 3, 2)
    assert not recorded.enough
    written(tmp_path, 50, name="20260305_08{:02d}{:02d}.wav")
    recorded = RecordedFiles().of(tmp_path)
    assert recorded.enough
    # As in docs/alarms.md: 70 recordings of 10 s support about one in 490.
    assert recorded.false_alarm_s == pytest.approx(490 * (62 / 70) ** 1.5)


# ---- the steps -----------------------------------------------------------------------------------------------


def test_a_folder_is_recorded_learned_and_monitored(set_up: SetUp, tmp_path: Path) -> None:
    folder = tmp_path / "plant"
    written(folder / "recordings", 15)
    set_up.choose("Pump 3", "folder", "recordings")
    wait_for(lambda: set_up.state().waiting == 15)
    with pytest.raises(HarkenError, match="cannot be done at this step"):
        set_up.start()
    set_up.record(15, existing=True)
    wait_for(lambda: set_up.state().phase == "listening" and set_up.state().kept)
    assert set_up.state().ended == "done"
    # The next day, after a restart.
    set_up.close()
    later = SetUp(folder)
    try:
        state = later.state()
        assert (state.machine, state.phase, state.recorded.recordings) == ("Pump 3", "paused", 15)
        later.fit()
        wait_for(lambda: later.state().phase == "fitted")
        result = later.state().result
        assert result is not None
        assert result["recordings"] + len(result["set_aside"]) == 15
        assert result["alarm"][0]["text"].startswith("alarm above score")
        # What it is worth at each rate is said in the person's language.
        german = limits(later.state(), texts("de"))
        assert german.keys() == {"1/week", "1/month", "1/quarter"}
        assert german["1/week"] != limits(later.state(), texts("en"))["1/week"]
        later.start("1/month")
        machine = read_configuration(folder / "plant.yaml").machines["Pump 3"]
        assert machine.false_alarms == "1/month"
        assert later.state().phase == "source"
    finally:
        later.close()


@pytest.fixture
def learned(tmp_path: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder in which a machine was recorded and learned, and is not monitored yet."""

    def make(folder: Path) -> None:
        written(folder / "recordings", 15)
        shutil.copytree(folder / "recordings", folder / "normal" / "Pump 3")
        Detector.fit(folder / "normal" / "Pump 3", workers=0).save(folder / "Pump 3.harken")

    folder = tmp_path / "plant"
    shutil.copytree(once("set_up_pump", make), folder)
    draft(folder, "Pump 3")
    return folder


def draft(folder: Path, machine: str, source: dict[str, str] | None = None) -> None:
    """As an earlier run leaves it."""
    source = source or {"kind": "folder", "path": "recordings"}
    values = {"machine": machine, "source": source, "result": {"set_aside": []}}
    (folder / "set-up.json").write_text(json.dumps(values))


def test_a_monitor_begins_behind_what_was_learned_and_takes_another_machine(learned: Path) -> None:
    set_up = SetUp(learned)
    run = SetUpRun(set_up)
    thread = threading.Thread(target=run.run)
    thread.start()
    try:
        # What was learned from is not judged; what comes then is.
        written(learned / "recordings", 1, first=15, name="new_{:02d}{:02d}.wav")
        set_up.start()
        store = Store.open(learned / "monitor.db")
        wait_for(lambda: (machines := overview(store).machines) and machines[0].last)
        with store.reading() as connection:
            assert connection.scalars(sa.select(tables.windows.c.number)).all() == [0]
        assert run.live("monitor", "Pump 3") is not None
        # Another one joins while it runs.
        set_up.close()
        shutil.copytree(learned / "Pump 3.harken", learned / "Fan.harken")
        draft(learned, "Fan")
        another = SetUp(learned)
        another.started = set_up.started
        with pytest.raises(HarkenError, match="already"):
            another.choose("pump 3", "folder", "recordings")
        another.start("1/week")
        wait_for(lambda: run.live("monitor", "Fan"))
        another.close()
        store.close()
    finally:
        run.stop()
        thread.join()
        set_up.close()


def test_a_model_that_does_not_fit_its_source_is_said_and_nothing_is_written(learned: Path) -> None:
    shutil.rmtree(learned / "Pump 3.harken")
    set_up = SetUp(learned)
    try:
        with pytest.raises(HarkenError):
            set_up.start()
        assert not (learned / "plant.yaml").exists()
        assert set_up.state().phase == "fitted"
    finally:
        set_up.close()


def test_the_command_serves_it_and_ends_in_order(tmp_path: Path) -> None:
    port = free_port()
    words = [str(HARKEN), "monitor", "--setup", str(tmp_path / "plant"), "--page", str(port)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert f"http://127.0.0.1:{port}/setup" in process.stderr.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert answer.url.endswith("/setup")
        process.terminate()
        assert process.wait(60) == 0
    assert called("monitor", "--setup", tmp_path / "plant", "--page", "0").returncode == 2


def test_a_fit_is_cancelled(tmp_path: Path) -> None:
    written(tmp_path / "normal", 12)
    run = FitRun(FitRequest(str(tmp_path / "normal"), str(tmp_path / "pump.harken")))
    run.cancel()
    assert run.over
    assert (run.result, run.error) == (None, None)
    assert not (tmp_path / "pump.harken").exists()


def test_nobody_who_looks_is_listened_to_for_long(tmp_path: Path) -> None:
    made = SetUp(tmp_path, idle_s=0.5)
    try:
        (tmp_path / "recordings").mkdir()
        made.choose("pump", "folder", "recordings")
        assert made.live is not None
        wait_for(lambda: made.live is None)
        assert made.state().phase == "paused"
        made.listen()
        assert made.state().phase == "listening"
    finally:
        made.close()


# ---- the configuration -----------------------------------------------------------------------------------------


def test_a_second_machine_joins_a_file_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "plant.yaml"
    file.write_text(
        "# ours\nsources:            # of the hall\n\n    # by the door\n    a: {kind: folder, path: a}\nmachines:\n"
        "  a:\n    source: a\n    model: a.harken\n"
    )
    entry = {"source": "Fan, 2", "model": "Fan, 2.harken", "false_alarms": "1/week"}
    text, configuration = with_machine(file, "Fan, 2", {"kind": "folder", "path": "b: c"}, entry)
    assert list(configuration.machines) == ["Fan, 2", "a"]
    assert all(line in text for line in file.read_text().splitlines())
    assert text.count("\n") == file.read_text().count("\n") + 2
    for wrong in ("sources: {a: {kind: folder, path: a}}\nmachines: {}\n", "- a\n", "sources: [\n"):
        file.write_text(wrong)
        with pytest.raises(HarkenError):
            with_machine(file, "b", {"kind": "folder", "path": "b"}, entry)


def test_what_a_person_writes_refers_to_nothing(tmp_path: Path) -> None:
    """Neither to variables of the environment nor to files, which a configuration may."""
    entry = literal(source_entry(SetUpFolder(tmp_path), "stream", "http://example.com/${file:/etc/passwd}"))
    machine = {"source": "pump", "model": "pump.harken"}
    _, configuration = with_machine(tmp_path / "plant.yaml", "pump", entry, machine)
    assert configuration.sources["pump"].url == "http://example.com/${file:/etc/passwd}"  # type: ignore[union-attr]


def test_a_password_is_kept_apart_and_not_shown(learned: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("av")
    caplog.set_level("INFO")
    address = "rtsp://ada:secret@127.0.0.1:9/sound?key=hidden"
    set_up = SetUp(learned)
    try:
        set_up.choose("Pump 3", "stream", address)
        assert set_up.state().place == "rtsp://127.0.0.1:9/sound"
        set_up.close()
        draft(learned, "Pump 3", {"kind": "stream", "url": address})
        set_up = SetUp(learned)
        set_up.start()
    finally:
        set_up.close()
    text = (learned / "plant.yaml").read_text()
    assert "secret" not in text + caplog.text
    assert "hidden" not in text + caplog.text
    assert read_configuration(learned / "plant.yaml").sources["Pump 3"].url == address  # type: ignore[union-attr]
    for name in ("Pump 3.url", "set-up.json"):
        assert stat.S_IMODE((learned / name).stat().st_mode) == 0o600


def test_an_address_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    made = called("monitor", "--setup", tmp_path / "plant", "--host", "0.0.0.0")
    assert made.returncode == 2
    assert "there is no token" in made.stderr


# ---- what nobody can ask for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "..", "/etc", "../..", "recordings/../..", "normal", "evidence", ".git", "none", "a\0b", "\udc80"]
)
def test_only_folders_below_are_listened_to(set_up: SetUp, tmp_path: Path, name: str) -> None:
    (tmp_path / "plant" / ".git").mkdir()
    (tmp_path / "plant" / "normal").mkdir()
    assert set_up.place.folders() == ["recordings"]
    with pytest.raises(HarkenError, match="is no folder in"):
        set_up.choose("pump", "folder", name)
    assert set_up.state().phase == "source"


@pytest.mark.parametrize(
    "address",
    ["file:///etc/passwd", "/etc/passwd", "http://", "concat:a|b", "rtsp://[", "http://a b/", "data:,x", "x" * 3000],
)
def test_streams_are_addresses_of_a_network(tmp_path: Path, address: str) -> None:
    with pytest.raises(HarkenError, match="no address of a stream"):
        source_entry(SetUpFolder(tmp_path), "stream", address)


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "a\\b", "-x/..", "${HOME}", "a#", ".hidden", "x" * 61, "PUMP", "a\nb"]
)
def test_names_that_a_machine_cannot_have(name: str) -> None:
    with pytest.raises(HarkenError):
        machine_name(name, ["pump"])


def _server(tmp_path: Path, set_up: SetUp | None, token: str = "") -> PageServer:
    server = PageServer(PageSettings(tmp_path / "m.db", tmp_path / "evidence", port=0, token=token, set_up=set_up))
    server.start()
    return server


def test_a_page_that_was_not_started_for_it_sets_nothing_up(tmp_path: Path) -> None:
    server = _server(tmp_path, None)
    try:
        browser = Browser(server)
        for path in ("/setup", "/setup/live", "/setup/outliers/0", "/v1/setup", "/v1/setup/sources"):
            assert browser(path)[0] == 404, path
        assert browser("/setup/choose", "POST", b"machine=a&source=microphone:")[0] == 404
        assert browser("/v1/setup", "POST", b'{"step": "record"}', Content_Type="application/json")[0] == 404
        assert "Add a machine" not in browser.text("/", Accept_Language="en")
    finally:
        server.stop()


def test_others_need_the_token_and_no_other_site_takes_a_step(set_up: SetUp, tmp_path: Path) -> None:
    server = _server(tmp_path, set_up, TOKEN)
    step = urlencode({"machine": "pump", "source": "folder:recordings"}).encode()
    try:
        browser = Browser(server)
        assert browser("/setup/choose", "POST", step)[0] == 401
        assert browser("/v1/setup")[0] == 401
        allowed = {"Authorization": f"Bearer {TOKEN}"}
        assert browser("/setup/choose", "POST", step, **allowed, Origin="https://evil.example.com")[0] == 403
        assert browser("/setup/choose", "POST", step, **allowed, Sec_Fetch_Site="cross-site")[0] == 403
        assert set_up.state().phase == "source"
        assert browser("/setup/choose", "POST", step, **allowed)[0] == 303
        assert set_up.state().phase == "listening"
        assert "recordings" in browser.text("/setup", **allowed)
        status, _, body = browser("/setup/record", "POST", b"count=-1", **allowed, Accept_Language="en")
        assert status == 400
        assert b"Give 1 to 5000 recordings" in body
        for number in (0, -1, 99):
            assert browser(f"/setup/outliers/{number}", **allowed)[0] == 404
        assert browser("/setup/outliers/..%2f..%2fset-up.json", **allowed)[0] in (404, 422)
    finally:
        server.stop()


def test_every_step_is_there_without_scripts(set_up: SetUp, tmp_path: Path) -> None:
    written(tmp_path / "plant" / "recordings", 3)
    server = _server(tmp_path, set_up)
    try:
        browser = Browser(server)

        def page() -> str:
            return browser.text("/setup", Accept_Language="en")

        assert 'value="folder:recordings"' in page()
        assert browser("/setup/choose", "POST", b"machine=pump&source=folder:recordings")[0] == 303
        wait_for(lambda: "It can be heard well." in page())
        assert "Level \u2212" in page()
        assert "0 of at least 60 recordings" in page()
        assert browser("/setup/record", "POST", b"count=3&existing=1")[0] == 303
        wait_for(lambda: "Done: 3 of 3 recorded" in page())
        assert "3 of at least 60 recordings (3 s)" in page()
        status, _, body = browser("/setup/fit", "POST", b"", Accept_Language="en")
        assert status == 400
        assert b"3 recordings are too few" in body
        assert browser("/setup/again", "POST", b"")[0] == 303
        assert "Name of the machine" in page()
    finally:
        server.stop()


def test_each_step_says_who_took_it(set_up: SetUp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    set_up.choose("pump", "folder", "recordings", by="Ada\x1b[31m at 10.0.0.7")
    set_up.record(5, by="Ada at 10.0.0.7")
    assert "Ada\\x1b[31m at 10.0.0.7 listens to folder recordings for pump" in caplog.text
    assert "Ada at 10.0.0.7 records pump, 5 recordings" in caplog.text
    assert set_up.is_recording

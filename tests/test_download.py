"""DCASE archives over real sockets from a server that misbehaves; zips that must not be unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from harken.core.download import RetryPolicy
from harken.core.errors import HarkenError
from harken.data.catalog import PARTS, Part, year
from harken.data.download import Downloaded, download
from harken.data.unpack import UnpackLimits, unpack
from record_server import RecordServer, Trick

QUICK = RetryPolicy(attempts=4, first=0.01, longest=0.02, patience=5)
DEV, TRAIN, EVAL = (year(2025).parts[part].record for part in PARTS)
FAN = "dev_fan.zip"


def wav(seed: int, seconds: float = 1.0) -> bytes:
    """A recording of noise, 16-bit, 16 kHz: 32 kB a second that no zip makes smaller."""
    samples = np.random.default_rng(seed).integers(-3000, 3000, int(16_000 * seconds), dtype=np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(samples.tobytes())
    return file.getvalue()


def recordings(machine: str, part: Part, clips: int = 3, top: bool = True) -> dict[str, bytes]:
    """Name -> bytes of a published zip in small."""
    files: dict[str, bytes] = {}
    for seed in range(clips):
        if part != "eval":
            files[f"train/section_00_source_train_normal_{seed:04d}_noAttribute.wav"] = wav(seed)
            files[f"supplemental/section_00_{seed:04d}.wav"] = wav(100 + seed)
        if part != "train":
            files[f"test/section_00_{part}_{seed:04d}.wav"] = wav(200 + seed)
    if part != "eval":
        files["attributes_00.csv"] = b"file_name,d1p,d1v\n"
    return {f"{machine}/{name}" if top else name: data for name, data in files.items()}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def below(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordServer]:
    """With the development zips of fan and valve, and both evaluation zips of ToyPet."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with RecordServer() as running:
        for archive in year(2025).archives():
            if archive.machine in ("fan", "valve", "ToyPet"):
                files = recordings(archive.machine, archive.part)
                running.publish(archive.record, archive.name, zipped(files))
        monkeypatch.setenv("HARKEN_ZENODO", running.api)
        yield running


def get(root: Path, *machines: str, **options: object) -> list[Downloaded]:
    return download(2025, root, machines=machines or ("fan",), retry=QUICK, **options)  # type: ignore[arg-type]


def raw(root: Path, half: str = "dev_data") -> Path:
    return root / "dcase2025t2" / half / "raw"


def store(root: Path) -> Path:
    return root / "dcase2025t2" / ".downloads"


def fails(root: Path, *machines: str, **options: object) -> str:
    with pytest.raises(HarkenError) as caught:
        get(root, *machines, **options)
    return str(caught.value)


# ------------------------------------------------------------------- layout


@pytest.mark.parametrize("entries", [False, True], ids=["list", "entries"])
def test_every_part_goes_to_its_place(server: RecordServer, tmp_path: Path, entries: bool) -> None:
    server.entries = entries
    results = get(tmp_path, "fan", "ToyPet")
    assert [(r.part, r.machine, r.state) for r in results] == [
        ("dev", "fan", "downloaded"),
        ("train", "ToyPet", "downloaded"),
        ("eval", "ToyPet", "downloaded"),
    ]
    assert below(raw(tmp_path)) == recordings("fan", "dev")
    assert below(raw(tmp_path, "eval_data")) == recordings("ToyPet", "train") | recordings("ToyPet", "eval")
    assert [server.asked(record) for record in (DEV, TRAIN, EVAL)] == [1, 1, 1]
    published = server.records[DEV][FAN]
    assert (results[0].bytes, results[0].md5, results[0].folder) == (
        published.size,
        published.md5,
        raw(tmp_path) / "fan",
    )
    note = json.loads((store(tmp_path) / f"{FAN}.json").read_text())
    assert note["record"] == DEV
    assert (note["name"], note["md5"], note["size"]) == (FAN, published.md5, published.size)
    assert note["files"] == len(recordings("fan", "dev"))
    assert not list(store(tmp_path).glob("*.zip*[!n]"))  # only the notes are left


def test_a_rerun_needs_no_network(server: RecordServer, tmp_path: Path) -> None:
    get(tmp_path, "fan", "ToyPet")
    before = len(server.log)
    assert {result.state for result in get(tmp_path, "fan", "ToyPet")} == {"already there"}
    assert len(server.log) == before


def test_a_recording_that_went_missing_is_brought_back(server: RecordServer, tmp_path: Path) -> None:
    get(tmp_path, "fan", "valve", keep_zips=True)
    lost = next((raw(tmp_path) / "fan" / "test").iterdir())
    lost.unlink()
    before = len(server.requests(FAN))
    assert [result.state for result in get(tmp_path, "fan", "valve")] == ["resumed", "already there"]
    assert lost.is_file()
    assert len(server.requests(FAN)) == before  # the zip was kept
    lost.unlink()
    assert [result.state for result in get(tmp_path, "fan", "valve")] == ["downloaded", "already there"]
    assert len(server.requests("dev_valve.zip")) == 1


def test_a_zip_without_the_machine_folder(server: RecordServer, tmp_path: Path) -> None:
    server.publish(DEV, FAN, zipped(recordings("fan", "dev", top=False)))
    get(tmp_path)
    assert below(raw(tmp_path)) == recordings("fan", "dev")


def test_four_bodies_at_once(server: RecordServer, tmp_path: Path) -> None:
    for name in (FAN, "dev_valve.zip", "eval_data_ToyPet_train.zip", "eval_data_ToyPet_test.zip"):
        server.always[name] = Trick(together=4)
    get(tmp_path, "fan", "valve", "ToyPet", jobs=4)
    assert server.most_sending == 4


def test_one_job_is_one_body_at_a_time(server: RecordServer, tmp_path: Path) -> None:
    get(tmp_path, "fan", "valve", "ToyPet", jobs=1)
    assert server.most_sending == 1


def test_progress_announces_and_ends(server: RecordServer, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    get(tmp_path, progress=lambda *call: calls.append(call))
    size = server.records[DEV][FAN].size
    assert calls[0] == (FAN, 0, size)
    assert calls[-1] == (FAN, size, size)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


# -------------------------------------------------------------- misbehaviour


def test_dropped_connections_are_resumed(server: RecordServer, tmp_path: Path) -> None:
    server.tricks[FAN] = [Trick(drop_after=65_536), Trick(drop_after=49_152, reset=True), Trick(drop_after=0)]
    assert get(tmp_path)[0].state == "downloaded"
    assert below(raw(tmp_path)) == recordings("fan", "dev")
    first, *later = server.requests(FAN)
    assert first == ""
    starts = [int(header.removeprefix("bytes=").removesuffix("-")) for header in later]
    assert starts[0] == 65_536
    assert starts[0] <= starts[1] == starts[2]


def test_drops_without_end_end(server: RecordServer, tmp_path: Path) -> None:
    server.always[FAN] = Trick(drop_after=16_384)
    text = fails(tmp_path)
    assert "the connection" in text
    assert "after 65536 of" in text
    assert f"files/{FAN}" in text
    assert "Run the same command again: downloaded data are kept" in text
    server.always.clear()
    assert get(tmp_path)[0].state == "resumed"
    assert server.requests(FAN)[-1] == "bytes=65536-"
    assert below(raw(tmp_path)) == recordings("fan", "dev")


def test_drops_that_bring_nothing_new_end_too(server: RecordServer, tmp_path: Path) -> None:
    """Megabytes each time, but always the same ones."""
    server.publish(DEV, FAN, zipped({f"fan/train/{i}.wav": wav(i, 10) for i in range(10)}, zipfile.ZIP_STORED))
    server.always[FAN] = Trick(drop_after=2_000_000, no_range=True)
    assert "the connection" in fails(tmp_path)
    assert len(server.requests(FAN)) < 8


def test_wrong_bytes_once(server: RecordServer, tmp_path: Path) -> None:
    server.tricks[FAN] = [Trick(spoil=True)]
    assert get(tmp_path)[0].state == "downloaded"
    assert server.requests(FAN) == ["", ""]
    assert below(raw(tmp_path)) == recordings("fan", "dev")


def test_wrong_bytes_always(server: RecordServer, tmp_path: Path) -> None:
    server.always[FAN] = Trick(spoil=True)
    text = fails(tmp_path)
    data = server.records[DEV][FAN].data
    middle = len(data) // 2
    spoilt = data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 8]) + data[middle + 8 :]
    assert f"md5 {hashlib.md5(spoilt).hexdigest()}, expected {hashlib.md5(data).hexdigest()}" in text
    assert server.requests(FAN) == ["", ""]
    assert below(tmp_path) == {}


def test_a_spoilt_beginning_is_thrown_away(server: RecordServer, tmp_path: Path) -> None:
    store(tmp_path).mkdir(parents=True)
    (store(tmp_path) / f"{FAN}.part").write_bytes(b"x" * 1000)
    assert get(tmp_path)[0].state == "downloaded"
    assert server.requests(FAN) == ["bytes=1000-", ""]


def test_a_part_that_is_whole_is_not_asked_for(server: RecordServer, tmp_path: Path) -> None:
    store(tmp_path).mkdir(parents=True)
    (store(tmp_path) / f"{FAN}.part").write_bytes(server.records[DEV][FAN].data)
    assert get(tmp_path)[0].state == "resumed"
    assert server.requests(FAN) == []


def test_a_part_that_is_too_long(server: RecordServer, tmp_path: Path) -> None:
    store(tmp_path).mkdir(parents=True)
    (store(tmp_path) / f"{FAN}.part").write_bytes(server.records[DEV][FAN].data + b"x")
    assert get(tmp_path)[0].state == "downloaded"
    assert server.requests(FAN) == [""]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(server: RecordServer, tmp_path: Path, status: int) -> None:
    server.tricks[FAN] = [Trick(status=status, headers={"Retry-After": "1"})]
    start = time.monotonic()
    get(tmp_path)
    assert time.monotonic() - start >= 1
    assert len(server.requests(FAN)) == 2


def test_retry_after_as_a_date_for_a_record(server: RecordServer, tmp_path: Path) -> None:
    second = int(time.time()) + 2
    until = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))
    server.tricks[DEV] = [Trick(status=429, headers={"Retry-After": until})]
    get(tmp_path)
    assert time.time() >= second
    assert server.asked(DEV) == 2


def test_a_server_that_asks_to_wait_for_hours(server: RecordServer, tmp_path: Path) -> None:
    server.always[FAN] = Trick(status=429, headers={"Retry-After": "7200"})
    start = time.monotonic()
    assert "the server asks to wait 7200 s" in fails(tmp_path)
    assert time.monotonic() - start < 60


def test_server_errors_pass_or_do_not(server: RecordServer, tmp_path: Path) -> None:
    server.tricks[DEV] = [Trick(status=502)]
    server.tricks[FAN] = [Trick(status=500), Trick(status=503), Trick(status=504)]
    get(tmp_path)
    server.always["dev_valve.zip"] = Trick(status=500)
    assert "the server answered 500 Internal Server Error (4 attempts)" in fails(tmp_path, "valve")
    assert len(server.requests("dev_valve.zip")) == QUICK.attempts


def test_forbidden_is_not_tried_again(server: RecordServer, tmp_path: Path) -> None:
    server.always[FAN] = Trick(status=403)
    assert "the server answered 403" in fails(tmp_path)
    assert len(server.requests(FAN)) == 1


def test_a_server_without_ranges(server: RecordServer, tmp_path: Path) -> None:
    server.always[FAN] = Trick(no_range=True)
    server.tricks[FAN] = [Trick(drop_after=98_304)]
    assert get(tmp_path)[0].state == "downloaded"
    assert server.requests(FAN) == ["", "bytes=98304-"]
    assert below(raw(tmp_path)) == recordings("fan", "dev")


def test_a_server_that_sends_another_range(server: RecordServer, tmp_path: Path) -> None:
    server.tricks[FAN] = [Trick(drop_after=98_304), Trick(wrong_range=True)]
    get(tmp_path)
    assert server.requests(FAN) == ["", "bytes=98304-", ""]


def test_a_file_shorter_than_its_record_says(server: RecordServer, tmp_path: Path) -> None:
    data = server.records[DEV][FAN].data
    server.publish(DEV, FAN, data, size=len(data) + 10)
    text = fails(tmp_path)
    assert f"of {len(data) + 10} bytes" in text or f"no data after byte {len(data)}" in text
    assert not (store(tmp_path) / FAN).exists()


def test_a_file_longer_than_its_record_says(server: RecordServer, tmp_path: Path) -> None:
    data = server.records[DEV][FAN].data
    server.publish(DEV, FAN, data, size=len(data) - 10)
    assert f"sent more than the {len(data) - 10} bytes" in fails(tmp_path)
    assert not (store(tmp_path) / FAN).exists()


def test_a_zip_published_cut_short_and_then_mended(server: RecordServer, tmp_path: Path) -> None:
    whole = server.records[DEV][FAN].data
    server.publish(DEV, FAN, whole[: len(whole) // 2])
    text = fails(tmp_path)
    assert str(store(tmp_path) / FAN) in text
    assert "is not a complete zip archive" in text
    assert below(raw(tmp_path)) == {}
    fails(tmp_path)
    assert len(server.requests(FAN)) == 1  # the same again is not downloaded again
    server.publish(DEV, FAN, whole)
    assert get(tmp_path)[0].state == "downloaded"
    assert below(raw(tmp_path)) == recordings("fan", "dev")


def test_a_file_that_the_record_lacks(server: RecordServer, tmp_path: Path) -> None:
    server.records[DEV]["dev_fan_r2.zip"] = server.records[DEV].pop(FAN)
    text = fails(tmp_path)
    assert text.startswith(f"{FAN}: record {DEV} has no such file")
    assert "dev_fan_r2.zip" in text


def test_a_record_that_is_not_there(server: RecordServer, tmp_path: Path) -> None:
    del server.records[DEV]
    assert f"{server.api}/{DEV}: the server answered 404" in fails(tmp_path)
    assert server.asked(DEV) == 1


def test_an_answer_that_is_no_record(server: RecordServer, tmp_path: Path) -> None:
    server.always[DEV] = Trick(status=200)
    assert f"{server.api}/{DEV}: did not answer with a record" in fails(tmp_path)


def test_no_server_at_all(tmp_path: Path, server: RecordServer) -> None:
    server.__exit__(None, None, None)
    assert "the server could not be reached (4 attempts)" in fails(tmp_path)
    assert "is not a valid URL" in fails(tmp_path, api="zenodo.org/api/records")


def test_one_that_fails_does_not_stop_the_others(server: RecordServer, tmp_path: Path) -> None:
    del server.records[EVAL]
    server.always["dev_valve.zip"] = Trick(spoil=True)
    text = fails(tmp_path, "fan", "valve", "ToyPet")
    assert text.startswith("2 of 4 archives failed, the others are in place: ")
    assert "dev_valve.zip" in text
    assert "eval_data_ToyPet_test.zip" in text
    assert FAN not in text
    assert below(raw(tmp_path)) == recordings("fan", "dev")
    assert below(raw(tmp_path, "eval_data")) == recordings("ToyPet", "train")


def test_the_record_is_believed_over_the_catalogue(
    server: RecordServer, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    archive = year(2023).archives(("dev",), ("bearing",))[0]
    assert archive.md5
    server.publish(archive.record, archive.name, zipped(recordings("bearing", "dev")))
    notes: list[str] = []
    found = download(2023, tmp_path, parts=("dev",), machines=("bearing",), retry=QUICK, warn=notes.append)
    assert found[0].md5 == server.records[archive.record][archive.name].md5
    assert len(notes) == 1
    assert archive.md5 in notes[0]
    assert not recwarn.list


def test_what_the_year_does_not_have(server: RecordServer, tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match="no machine 'fans'"):
        get(tmp_path, "fans")
    with pytest.raises(HarkenError, match="no archive of fan in eval"):
        get(tmp_path, "fan", parts=("eval",))
    assert server.log == []


def test_a_folder_that_cannot_be_written(server: RecordServer, tmp_path: Path) -> None:
    (tmp_path / "dcase2025t2").write_text("a file")
    assert "cannot be written" in fails(tmp_path)


# --------------------------------------------------------------------- kills

CHILD = """
import sys
from pathlib import Path
from harken.data.download import download
for result in download(2025, Path(sys.argv[1]), parts=("dev",), machines=("fan", "valve"), keep_zips=True, jobs=1):
    print(result.name, result.state)
"""


def test_killed_in_the_middle_of_a_body(server: RecordServer, tmp_path: Path) -> None:
    server.publish(DEV, "dev_valve.zip", zipped(recordings("valve", "dev", clips=10)))
    server.tricks["dev_valve.zip"] = [Trick(pause=0.1)]
    part = store(tmp_path) / "dev_valve.zip.part"
    with subprocess.Popen([sys.executable, "-c", CHILD, tmp_path]) as child:
        deadline = time.monotonic() + 60
        while not (part.is_file() and part.stat().st_size > 200_000) and time.monotonic() < deadline:
            time.sleep(0.005)
        with pytest.raises(HarkenError, match="another download of this year is running in this folder"):
            get(tmp_path, "fan")
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert not (store(tmp_path) / "dev_valve.zip").exists()
    assert not (raw(tmp_path) / "valve").exists()
    arrived = part.stat().st_size
    assert 200_000 < arrived < server.records[DEV]["dev_valve.zip"].size

    again = subprocess.run([sys.executable, "-c", CHILD, tmp_path], capture_output=True, text=True, check=True)
    assert again.stdout.splitlines() == [f"{FAN} already there", "dev_valve.zip resumed"]
    assert server.requests(FAN) == [""]
    assert server.requests("dev_valve.zip") == ["", f"bytes={arrived}-"]
    assert below(raw(tmp_path)) == recordings("fan", "dev") | recordings("valve", "dev", clips=10)
    for name in (FAN, "dev_valve.zip"):
        assert (store(tmp_path) / name).read_bytes() == server.records[DEV][name].data


@pytest.mark.parametrize("moment", ["unpacking", "moving"])
def test_killed_in_the_middle_of_unpacking(tmp_path: Path, moment: str) -> None:
    files = {f"fan/train/{index:04d}.wav": wav(index, 0.05) for index in range(1500)}
    (tmp_path / FAN).write_bytes(zipped(files, zipfile.ZIP_STORED))
    raw_folder = tmp_path / "raw"
    watched = (raw_folder / ".unpack-dev_fan" if moment == "unpacking" else raw_folder / "fan") / "train" / "0050.wav"
    program = "import sys; from pathlib import Path; from harken.data.unpack import unpack; "
    program += "unpack(Path(sys.argv[1]), Path(sys.argv[2]))"
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / FAN, raw_folder / "fan"]) as child:
        while not watched.exists() and child.poll() is None:
            pass
        child.kill()
    here = below(raw_folder / "fan") if moment == "moving" else {}
    assert all(data == files[f"fan/{name}"] for name, data in here.items())
    sizes = unpack(tmp_path / FAN, raw_folder / "fan")
    assert below(raw_folder) == files  # and nothing of the first run is left
    assert sizes == {name.removeprefix("fan/"): len(data) for name, data in files.items()}


# ----------------------------------------------------------------- bad zips


def refused(tmp_path: Path, data: bytes, limits: UnpackLimits = UnpackLimits()) -> str:
    """The message of the refusal; nothing was written anywhere."""
    path = tmp_path / "inner" / "dev_fan.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(HarkenError) as caught:
        unpack(path, tmp_path / "inner" / "raw" / "fan", limits=limits)
    assert below(tmp_path) == {"inner/dev_fan.zip": data}
    assert caught.value.file == str(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["../x", "fan/../../x", "fan/train/..", "/tmp/harken_x", "C:/x", "C:x", "..\\x", "fan\\train\\x.wav", "fan/a\0b"],
)
def test_names_that_lead_outside(tmp_path: Path, name: str) -> None:
    entry = zipfile.ZipInfo("fan/train/ok.wav")
    other = zipfile.ZipInfo("placeholder")
    other.filename = other.orig_filename = name
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(entry, b"ok")
        archive.writestr(other, b"bad")
    assert "outside its folder" in refused(tmp_path, file.getvalue())
    assert not Path("/tmp/harken_x").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR], ids=["symlink", "fifo", "device"])
def test_links_and_devices(tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("fan/train/x.wav")
    entry.external_attr = (kind | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    assert "a link or device: 'fan/train/x.wav'" in refused(tmp_path, file.getvalue())


def test_limits(tmp_path: Path) -> None:
    clips = zipped({f"fan/train/{index}.wav": wav(index, 0.1) for index in range(5)})
    assert "contains 5 entries, more than 4" in refused(tmp_path / "a", clips, UnpackLimits(entries=4))
    assert "would unpack to" in refused(tmp_path / "b", clips, UnpackLimits(size=15_000))
    bomb = zipped({"fan/train/zeros.wav": bytes(20_000_000)})
    assert "more than 100 times its size" in refused(tmp_path / "c", bomb)


def test_a_header_that_lies_about_the_size(tmp_path: Path) -> None:
    bomb = bytearray(zipped({"fan/train/zeros.wav": bytes(20_000_000)}))
    true = (20_000_000).to_bytes(4, "little")
    assert bomb.count(true) == 2  # the local and the central header
    data = bytes(bomb).replace(true, (1000).to_bytes(4, "little"))
    assert "is not a complete zip archive" in refused(tmp_path, data)


@pytest.mark.parametrize("names", [("fan/a.wav", "fan/a.wav"), ("fan/a.wav", "a.wav")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice(tmp_path: Path, names: tuple[str, str]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    assert "twice" in refused(tmp_path, file.getvalue())


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["fan/CON.wav"], "device on Windows"),
        (["fan/train./a.wav"], "ends in a full stop"),
        (["fan/a?.wav"], "which Windows does not allow"),
        (["fan/a\n.wav"], "which Windows does not allow"),
        (["fan/a.wav", "fan/A.wav"], "where case does not count"),
        (["fan/train/a.wav", "fan/Train/b.wav"], "where case does not count"),
        (["fan/\u00fc.wav", "fan/u\u0308.wav"], "where case does not count"),
    ],
)
def test_names_that_some_systems_cannot_keep(tmp_path: Path, names: list[str], reason: str) -> None:
    assert reason in refused(tmp_path, zipped({name: name.encode() for name in names}))


def test_damage_anywhere_is_seen(tmp_path: Path) -> None:
    """Each byte of a small zip in turn: refused in words, or nothing but what was packed comes out."""
    files = {"fan/train/a.wav": b"some sound " * 8, "fan/attributes_00.csv": b"file_name\n"}
    data = zipped(files)
    path, folder = tmp_path / "dev_fan.zip", tmp_path / "raw"
    survived = 0
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 0xFF
        path.write_bytes(spoilt)
        try:
            unpack(path, folder / str(place) / "fan")
        except HarkenError:
            assert not below(folder / str(place))
        else:
            survived += 1
            assert set(below(folder / str(place)).values()) <= set(files.values())
    assert survived < len(data) / 2  # dates, names and the like: those are for the md5


def test_not_a_zip_and_an_empty_zip(tmp_path: Path) -> None:
    assert "is not a complete zip archive" in refused(tmp_path / "a", b"<html>sorry</html>")
    assert "contains no files" in refused(tmp_path / "b", zipped({}))


def test_what_archivers_add_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / FAN
    path.write_bytes(zipped({"fan/a.wav": b"a", "__MACOSX/fan/._a.wav": b"b", "fan/.DS_Store": b"c"}))
    assert unpack(path, tmp_path / "raw" / "fan") == {"a.wav": 1}
    assert below(tmp_path / "raw") == {"fan/a.wav": b"a"}


def test_files_that_are_there(tmp_path: Path) -> None:
    path, folder = tmp_path / FAN, tmp_path / "raw" / "fan"
    path.write_bytes(zipped({"fan/a.wav": b"new", "fan/b.wav": b"more"}))
    folder.mkdir(parents=True)
    (folder / "b.wav").write_bytes(b"mine")
    with pytest.raises(HarkenError, match=r"b\.wav: exists with different content and was not replaced"):
        unpack(path, folder)
    assert below(tmp_path / "raw") == {"fan/b.wav": b"mine"}
    (folder / "b.wav").write_bytes(b"more")
    unpack(path, folder)
    assert below(tmp_path / "raw") == {"fan/a.wav": b"new", "fan/b.wav": b"more"}


# ---------------------------------------------------------------------- verb


def test_the_verb(server: RecordServer, tmp_path: Path) -> None:
    from harken.cli.data_download import download as verb

    app = typer.Typer()
    app.command()(verb)
    words = ["2025", "--split", "dev", "--machine", "fan", "--machine", "valve", "--root", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["licence"] == "CC BY-NC-SA 4.0"
    assert [archive["name"] for archive in found["archives"]] == [FAN, "dev_valve.zip"]
    assert found["archives"][0]["folder"] == str(raw(tmp_path) / "fan")
    first, *_, last = done.stderr.splitlines()
    assert "CC BY-NC-SA 4.0" in first
    assert "2 archives" in done.stderr
    assert "2 downloaded" in done.stderr
    assert last == f"check: {len(found['findings'])} findings"  # three clips are not the thousand of the catalogue
    with pytest.raises(HarkenError, match="no archive of fan"):
        CliRunner().invoke(app, ["2025", "--split", "eval", "--machine", "fan"], catch_exceptions=False)


def test_importing_it_does_not_import_requests() -> None:
    program = "import sys, harken.data.download, harken.cli.data_download; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0, os.environ.get("PYTHONPATH")

"""Years of recordings: the same verdicts in tables by day, and what is judged is not judged again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

from command_line import called
from conftest import hum
from harken.core.errors import HarkenError
from harken.monitor import archive as archives
from harken.monitor.archive import ArchiveSettings, ArchiveShard, RecordingArchive
from harken.monitor.archive_table import read_rows
from listening import RATE, detector_in, write

pytest.importorskip("pyarrow", reason="pyarrow is not installed (harken[bench])")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    (folder / "normal").mkdir()
    detector_in(folder / "normal").save(folder / "pump.harken")
    return folder / "pump.harken"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Three days: eight recordings, one of them with a fault, one unreadable, one in a folder named by the day."""
    folder = tmp_path / "archive"
    (folder / "2026-03-03").mkdir(parents=True)
    for number in range(6):
        name = f"pump_2026030{1 + number // 3}_1{number}0000.wav"
        write(folder / name, hum(70 + number, fault=number == 4))
    (folder / "pump_20260302_200000.wav").write_bytes(b"no sound")
    sf.write(folder / "2026-03-03" / "pump_120000.wav", hum(90, seconds=3.5), RATE)
    return folder


def scored(*words: object, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """JSON lines and messages of `harken score`."""
    done = called("score", *words)
    assert done.returncode == code, done.stderr
    return [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")], done.stderr


def test_tables_hold_the_verdicts_of_harken_score(model: Path, recordings: Path, tmp_path: Path) -> None:
    entries, _ = scored(recordings, "-m", model, "--json", "--workers", 1)
    *verdicts, summary = [entry for entry in entries if entry["record"] in ("recording", "summary")]
    results = tmp_path / "results"
    (*_, of_archive), _ = scored(recordings, "-m", model, "--results", results, "--json", "--workers", 1)
    days = sorted(path.name for path in results.glob("*.parquet"))
    assert days == ["2026-03-01.parquet", "2026-03-02.parquet", "2026-03-03.parquet"]
    rows = [row for day in days for row in read_rows(results / day)]
    by_file = {row["file"]: row for row in rows}
    for verdict in verdicts:
        row = by_file[str(verdict["file"])]
        for name in ("verdict", "score", "event_score", "p_value", "higher_than", "why", "nearest", "warnings"):
            assert row[name] == verdict[name], name
    for name in ("recordings", "normal", "suspect", "alarm", "not_judged", "not_scored", "changes", "changed_since"):
        assert of_archive[name] == summary[name], name
    assert by_file[str(recordings / "2026-03-03" / "pump_120000.wav")]["recorded"].isoformat() == (
        "2026-03-03T12:00:00+00:00"
    )
    assert [path.name for path in results.iterdir() if not path.suffix] == []


def test_what_is_judged_is_not_judged_again(
    model: Path, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after some shards, with recordings that are added and changed afterwards."""
    monkeypatch.setattr(archives, "_SHARD_FILES", 2)
    settings = ArchiveSettings(model)
    files = sorted(path for path in recordings.rglob("*.wav"))

    def archive() -> RecordingArchive:
        return RecordingArchive(files, tmp_path / "results", settings)

    shards = archive().waiting
    assert [len(shard.files) for shard in shards] == [2, 1, 2, 2, 1]
    for shard in shards[:3]:
        shard.judge(settings, workers=0)
    assert archive().finish() == ["2026-03-02", "2026-03-03"]
    assert archive().waiting == shards[3:]
    for shard in archive().waiting:
        shard.judge(settings, workers=0)
    assert archive().finish() == []
    tables = {path: path.read_bytes() for path in (tmp_path / "results").glob("*.parquet")}
    assert not archive().waiting
    assert archive().finish() == []
    assert {path: path.read_bytes() for path in (tmp_path / "results").glob("*.parquet")} == tables
    # A recording is replaced: its day is judged again, and no other.
    write(files[-1], hum(5))
    assert {shard.table.name[:10] for shard in archive().waiting} == {files[-1].name[5:9] + "-03-02"}
    # A damaged table, too.
    damaged = tmp_path / "results" / "2026-03-01.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert len(archive().waiting) == 4
    # Another alarm gives other verdicts.
    other = RecordingArchive(files, tmp_path / "results", ArchiveSettings(model, false_alarms="10%"))
    assert len(other.waiting) == 5


def test_parts_that_fail_leave_the_others(
    model: Path, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = ArchiveShard.judge

    def fails(shard: ArchiveShard, settings: ArchiveSettings, workers: int | None = None) -> None:
        if "2026-03-02" in shard.table.name:
            raise HarkenError("the disk is full", file=shard.table)
        judge(shard, settings, 0)

    arguments = [recordings, "-m", model, "--results", tmp_path / "results", "--json"]
    monkeypatch.setattr(ArchiveShard, "judge", fails)
    entries, messages = scored(*arguments, code=2)
    assert "the disk is full" in messages
    assert "1 shard of 1 day could not be judged. Run again, which resumes." in messages
    assert entries[-1]["unfinished_days"] == ["2026-03-02"]
    monkeypatch.setattr(ArchiveShard, "judge", judge)
    _, messages = scored(*arguments, "--workers", 1)
    assert "2 of 3 shards are judged already" in messages


def test_options_that_do_not_go_together(model: Path, recordings: Path) -> None:
    for options, message in (
        (["--executor", "ray"], "need --results"),
        (["--results", "x", "--address", "auto"], "is for a Ray cluster"),
        (["--results", "x", "--report", "x.html"], "no report or memory"),
    ):
        _, messages = scored(recordings, "-m", model, *options, code=2)
        assert message in messages

"""Years of recordings judged in shards, by day: what is judged stays, whatever stops the rest."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError
from harken.core.json_text import json_text
from harken.data.name_times import named_time
from harken.data.names import without_suffix
from harken.monitor.archive_table import key_of, read_rows, row_of, verdict_of, write_rows
from harken.monitor.bundle import bundle_digest
from harken.monitor.detector import Detector
from harken.monitor.verdict import Verdict

#: version of the tables
_VERSION = 1
#: recordings of a shard
_SHARD_FILES = 250
#: tables of days that are in memory
_DAYS = 3


@dataclass(frozen=True)
class ArchiveSettings:
    """How an archive is judged. model: a bundle; false_alarms, every: see `Detector.set_alarm`, None: the model's."""

    model: Path
    false_alarms: str | None = None
    every: str | None = None
    all_formats: bool = False
    store: Path | None = None

    def detector(self) -> Detector:
        """The model, with the alarm set. It is kept for the next shard."""
        return _detector(self, bundle_digest(self.model))


@dataclass(frozen=True)
class ArchiveShard:
    """Recordings of a day that are judged together. table: where their verdicts belong. recorded_s: of each, when it
    began, in seconds since 1970. key: of recordings, model and settings."""

    files: tuple[Path, ...]
    recorded_s: tuple[float, ...]
    table: Path
    key: str

    def judge(self, settings: ArchiveSettings, workers: int | None = None) -> None:
        """Judge the recordings, and write the table. workers: see `Detector.score_many`."""
        begins = dict(zip(self.files, self.recorded_s, strict=True))
        verdicts = settings.detector().score_many(
            self.files, store=settings.store, workers=workers, all_formats=settings.all_formats
        )
        write_rows(self.table, (row_of(verdict, begins[verdict.path]) for verdict in verdicts), self.key)


def judge_shard(settings: ArchiveSettings, shard: ArchiveShard) -> None:
    """`ArchiveShard.judge` on a node of a cluster: a recording that crashes the decoder harms only itself."""
    shard.judge(settings, workers=1)


@dataclass(frozen=True)
class ArchiveDay:
    """A day's recordings, in shards. table: of all their verdicts."""

    shards: tuple[ArchiveShard, ...]
    table: Path
    key: str

    @property
    def done(self) -> bool:
        """Whether the table is there, of these recordings as they are."""
        return key_of(self.table) == self.key

    @property
    def waiting(self) -> list[ArchiveShard]:
        """Parts that are to be judged."""
        return [] if self.done else [shard for shard in self.shards if key_of(shard.table) != shard.key]

    def finish(self) -> None:
        """Join the tables of all shards, which must be there."""
        if self.done:
            return
        write_rows(self.table, [row for shard in self.shards for row in read_rows(shard.table)], self.key)
        for shard in self.shards:
            shard.table.unlink(missing_ok=True)


class RecordingArchive:
    """Recordings, in order of time, whose verdicts belong into a folder: `2026-03-01.parquet` and so on.

    The day is that of the time in a recording's name, as its clock had it, else of its file (UTC). Verdicts that are
    there, of the same recordings, model and settings, are not made again.
    """

    def __init__(self, files: Sequence[Path], folder: Path, settings: ArchiveSettings) -> None:
        """Raises BundleError for what is no model, HarkenError for a file that is not there."""
        self.files, self.folder, self.settings = list(files), folder, settings
        basis = [
            _VERSION, bundle_digest(settings.model), settings.false_alarms, settings.every, settings.all_formats
        ]  # fmt: skip
        groups: dict[str, list[tuple[Path, float, os.stat_result]]] = {}
        for file in self.files:
            try:
                status = file.stat()
            except OSError as error:
                raise HarkenError(f"cannot be read ({error.strerror})", file=file, next_step="Check it") from None
            recorded_s = _recorded_s(file, status)
            day = datetime.fromtimestamp(recorded_s, UTC).date().isoformat()
            groups.setdefault(day, []).append((file, recorded_s, status))
        self.days = {day: self._day(day, groups[day], basis) for day in sorted(groups)}

    def _day(self, day: str, entries: list[tuple[Path, float, os.stat_result]], basis: list[Any]) -> ArchiveDay:
        shards = []
        for first in range(0, len(entries), _SHARD_FILES):
            files, recorded_s, states = zip(*entries[first : first + _SHARD_FILES], strict=True)
            named = [
                [os.fsdecode(file), status.st_size, status.st_mtime_ns]
                for file, status in zip(files, states, strict=True)
            ]
            key = hashlib.sha256(json_text([basis, named]).encode()).hexdigest()
            shards.append(ArchiveShard(files, recorded_s, self.shards_folder / f"{day}-{key[:16]}.parquet", key))
        key = hashlib.sha256("".join(shard.key for shard in shards).encode()).hexdigest()
        return ArchiveDay(tuple(shards), self.folder / f"{day}.parquet", key)

    @property
    def shards_folder(self) -> Path:
        """Of tables of shards, until their days are done."""
        return self.folder / ".shards"

    @property
    def waiting(self) -> list[ArchiveShard]:
        """Parts that are to be judged, by day."""
        return [shard for day in self.days.values() for shard in day.waiting]

    def finish(self) -> list[str]:
        """Write the tables of days whose shards are all there; the other days."""
        unfinished = []
        for name, day in self.days.items():
            if day.waiting:
                unfinished.append(name)
            else:
                day.finish()
        if not unfinished:
            shutil.rmtree(self.shards_folder, ignore_errors=True)
        return unfinished

    def verdicts(self) -> Iterator[Verdict]:
        """Of all days that are finished, in the order of the recordings: what is needed to judge them together."""
        days = {file: day for day in self.days.values() for shard in day.shards for file in shard.files}
        loaded: OrderedDict[Path, dict[str, list[dict[str, Any]]]] = OrderedDict()
        for file in self.files:
            day = days[file]
            if not day.done:
                continue
            if day.table not in loaded:
                rows: dict[str, list[dict[str, Any]]] = {}
                for row in read_rows(day.table):
                    rows.setdefault(row["file"], []).append(row)
                loaded[day.table] = rows
                if len(loaded) > _DAYS:
                    loaded.popitem(last=False)
            name = str(file).encode("utf-8", "backslashreplace").decode()
            yield from map(verdict_of, loaded[day.table].get(name, []))


@lru_cache(maxsize=1)
def _detector(settings: ArchiveSettings, digest: str) -> Detector:
    detector = Detector.load(settings.model)
    if settings.false_alarms is not None or settings.every is not None:
        fitted = detector.fitted
        detector.set_alarm(settings.false_alarms or fitted.false_alarms, settings.every or fitted.every)
    return detector


def _recorded_s(file: Path, status: os.stat_result) -> float:
    # A date may also stand in the name of a folder.
    named = named_time(without_suffix(os.path.join(*file.parts[-2:])))
    return status.st_mtime if named is None else named.seconds

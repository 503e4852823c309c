"""harken score --results: years of recordings, in shards, on this machine or a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import typer

from harken.cli.console import emit, line, progress, say

if TYPE_CHECKING:
    from harken.core.errors import HarkenError
    from harken.monitor.archive import ArchiveSettings, ArchiveShard, RecordingArchive


@dataclass(frozen=True)
class Workplace:
    """Where shards are judged. workers: processes of this machine; address, task_cpus: of a Ray cluster."""

    executor: Literal["local", "ray"] = "local"
    workers: int | None = None
    address: str | None = None
    task_cpus: float = 1.0


def score_archive(
    files: list[Path],
    results: Path,
    settings: ArchiveSettings,
    place: Workplace,
    *,
    changes: bool,
    json: bool,
    strict: bool,
    fail_on_anomaly: bool,
) -> None:
    """Judge what is not judged yet, and sum all of it up. changes: report lasting ones."""
    from harken.core.errors import HarkenError
    from harken.monitor.archive import RecordingArchive
    from harken.monitor.archive_table import check_tables
    from harken.monitor.verdict import Kind

    check_tables()
    archive = RecordingArchive(files, results, settings)
    waiting = archive.waiting
    kept = sum(len(day.shards) for day in archive.days.values()) - len(waiting)
    if kept:
        say(f"{kept} of {kept + len(waiting)} shards are judged already: {results}")
    failures = []
    with progress("scoring") as bar:
        for number, error in enumerate(_judged(archive, waiting, place), start=1):
            bar(number, len(waiting))
            if error is not None:
                say(f"not scored: {error}")
                failures.append(error)
    unfinished = archive.finish()
    sequence = settings.detector().sequence()
    counts: Counter[str] = Counter()
    began = failed = 0
    for verdict in archive.verdicts():
        counts[verdict.kind] += 1
        failed += verdict.score is None and verdict.kind == "not judged"
        change = sequence.update(verdict) if changes else None
        if change is not None:
            began += change.state == "began"
            emit(change.as_json()) if json else line(f"changed     {change.sentence}")
    ordered = {kind: counts[kind] for kind in get_args(Kind)}
    summary = ", ".join(f"{count} {kind}" for kind, count in ordered.items() if count) or "none"
    say(f"{len(files)} recordings of {len(archive.days)} days: verdicts {summary}; tables by day: {results}")
    if json:
        emit(
            {
                "record": "summary",
                "recordings": len(files),
                "days": len(archive.days),
                **{kind.replace(" ", "_"): count for kind, count in ordered.items()},
                "not_scored": failed,
                "changes": began,
                "changed_since": sequence.changed,
                "unfinished_days": unfinished,
            }
        )
    if failures:
        raise HarkenError(
            f"{len(failures)} shard{'s' * (len(failures) != 1)} of {len(unfinished)} "
            f"day{'s' * (len(unfinished) != 1)} could not be judged",
            next_step="Run again, which resumes",
        )
    if strict and failed:
        raise typer.Exit(2)
    if fail_on_anomaly and (counts["alarm"] or began or sequence.changed):
        raise typer.Exit(1)


def _judged(archive: RecordingArchive, waiting: list[ArchiveShard], place: Workplace) -> Iterator[HarkenError | None]:
    """None, or its error, for each shard."""
    from harken.core.errors import HarkenError

    if not waiting:
        return
    if place.executor == "ray":
        yield from _on_ray(archive, waiting, place)
        return
    for shard in waiting:
        try:
            shard.judge(archive.settings, place.workers)
        except HarkenError as error:
            yield error
        else:
            yield None


def _on_ray(
    archive: RecordingArchive, waiting: Iterable[ArchiveShard], place: Workplace
) -> Iterator[HarkenError | None]:
    from contextlib import closing

    from harken.bench.ray_cluster import RayCluster
    from harken.bench.workspace import Workspace
    from harken.monitor.archive import judge_shard

    cluster = RayCluster(place.address, place.task_cpus, workers=place.workers)
    workspace = Workspace(archive.shards_folder)
    with closing(cluster.open({}, workspace)) as pool:
        yield from pool.each(partial(judge_shard, archive.settings), waiting, archive.files[0])

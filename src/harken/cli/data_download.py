"""harken data download: one DCASE year, or a part of it, from Zenodo."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harken.cli.console import emit, progress, say

if TYPE_CHECKING:
    from harken.data.download import Progress


class Split(StrEnum):
    """Parts of a year that can be downloaded separately."""

    dev = "dev"
    train = "train"
    eval = "eval"
    all = "all"


def download(
    year: Annotated[int, typer.Argument(help="A year of the catalogue.", show_default=False)],
    split: Annotated[
        Split, typer.Option(help="dev: development; train, eval: training and test clips of the evaluation machines.")
    ] = Split.all,
    machine: Annotated[list[str] | None, typer.Option(help="Only this machine; may be repeated.")] = None,
    root: Annotated[Path, typer.Option(help="Folder that holds the years.")] = Path("data"),
    jobs: Annotated[int, typer.Option(help="Parallel downloads.", min=1, max=16)] = 4,
    keep_zips: Annotated[bool, typer.Option("--keep-zips", help="Keep the zips, in .downloads of the year.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Download a year, check it and unpack it. If interrupted, the same command resumes."""
    from harken.data import catalog
    from harken.data.check import check_year
    from harken.data.download import download as get

    entry = catalog.year(year)
    say(f"DCASE {year} Task 2, licence {entry.licence}")
    halves = tuple(half for half in catalog.PARTS if split in (Split.all, half))
    with _bars() as bar:
        results = get(
            year, root, parts=halves, machines=machine, jobs=jobs, keep_zips=keep_zips, progress=bar, warn=_note
        )
    states = Counter(result.state for result in results)
    words = ", ".join(f"{count} {state}" for state, count in states.items())
    size = sum(result.bytes for result in results) / 1e9
    say(f"{root / f'dcase{year}t2'}: {len(results)} archives, {size:.3g} GB: {words}")
    with progress("check") as bar:
        findings = check_year(root, year, halves, machine, bar)
    for finding in findings:
        say(f"note: {finding}")
    if json:
        archives = [vars(result) | {"folder": str(result.folder)} for result in results]
        emit({"year": year, "licence": entry.licence, "archives": archives, "findings": findings})
    say(f"check: {len(findings)} findings" if findings else "check: complete")


def _note(text: str) -> None:
    say(f"note: {text}")


@contextmanager
def _bars() -> Iterator[Progress | None]:
    """One bar for the total and one per zip being downloaded; None unless stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        overall = bars.add_task("all", total=None)
        tasks = {}
        sizes: dict[str, int] = {}
        arrived: dict[str, int] = {}

        def show(name: str, done: int, size: int) -> None:
            if name not in tasks:  # announced, before the first byte
                tasks[name] = bars.add_task(name, total=size, visible=False)
                sizes[name] = size
            else:
                bars.update(tasks[name], completed=done, visible=done < size)
            arrived[name] = done
            bars.update(overall, completed=sum(list(arrived.values())), total=sum(sizes.values()))

        yield show

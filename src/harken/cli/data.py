"""harken data: DCASE years, local data and the clips table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from harken.cli import data_download
from harken.cli.console import emit, line, progress, say

app = typer.Typer(help="DCASE data: list, download, index, check.", no_args_is_help=True)
app.command("download")(data_download.download)

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
def list_(
    year: Annotated[int | None, typer.Argument(help="Show the machines of this year.")] = None, json: Json = False
) -> None:
    """List the years of the catalogue, or the machines of one year."""
    from harken.data import catalog

    if year is None:
        entries = [catalog.year(number) for number in catalog.years()]
        if json:
            emit([entry.model_dump(mode="json") for entry in entries])
            return
        for entry in entries:
            halves = {half: sorted({m.name for m in entry.machines if m.part == half}) for half in ("dev", "eval")}
            line(
                f"{entry.year}  {entry.metric:<22} {len(halves['dev'])} development machines, "
                f"{len(halves['eval'])} evaluation machines, {'+'.join(entry.channels)}  {entry.licence}"
            )
        return
    entry = catalog.year(year)
    if json:
        emit(entry.model_dump(mode="json"))
        return
    line(f"DCASE {entry.year}: {entry.metric}, {entry.sample_rate} Hz, channels {'+'.join(entry.channels)}")
    for half, release in entry.parts.items():
        line(f"{half:<6} https://zenodo.org/records/{release.record}")
    for machine in entry.machines:
        hidden = ", attributes hidden" if machine.hidden_attributes else ""
        line(f"{machine.part:<5} {machine.name:<20} sections {' '.join(machine.sections)}{hidden}")
    for erratum in entry.errata:
        line(f"erratum: {erratum.text}")


@app.command("index")
def index_(
    root: Annotated[Path, typer.Argument(help="Folder with one or more years.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The table to write (default: ROOT/clips.parquet).")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Ground truth of evaluation clips.")] = None,
    year: Annotated[int | None, typer.Option(help="The year, if no folder name gives it.")] = None,
    headers: Annotated[bool, typer.Option("--headers", help="Read rate, channels and length of every file.")] = False,
    json: Json = False,
) -> None:
    """Collect names and attributes of all recordings in one clips table (Parquet)."""
    from harken.data.check import HeaderFinding, read_headers
    from harken.data.index import index
    from harken.data.table import write_table
    from harken.data.truth import read_truth

    clips, findings = index(root, truth=read_truth(truth) if truth else None, year=year)
    of_headers: list[HeaderFinding] = []
    if headers:
        with progress("headers") as bar:
            clips, of_headers = read_headers(clips, bar)
    table = out or root / "clips.parquet"
    write_table(clips, table)
    if json:
        emit(
            {
                "table": str(table),
                "clips": len(clips),
                "machines": sorted({clip.machine for clip in clips}),
                "years": sorted({clip.year for clip in clips if clip.year}),
                "findings": [vars(finding) for finding in findings],
                "unreadable": [finding.sentence for finding in of_headers if finding.unusable],
                "headers": [finding.sentence for finding in of_headers if not finding.unusable],
            }
        )
        return
    counts = Counter((clip.year, clip.machine, clip.split) for clip in clips)
    for (of, machine, split), count in sorted(counts.items(), key=lambda item: tuple(map(str, item[0]))):
        line(f"{of or '-':<5} {machine:<20} {split or '-':<13} {count:>7}")
    for finding in findings:
        say(f"note: {finding}")
    for sentence, _ in of_headers:
        say(f"note: {sentence}")
    say(f"{table}: {len(clips)} clips, {len(findings) + len(of_headers)} notes")


@app.command("check")
def check_(
    root: Annotated[Path, typer.Argument(help="Folder with one or more years.", show_default=False)], json: Json = False
) -> None:
    """Check names, counts, sampling rates and lengths against the catalogue; reads every file header."""
    from harken.data.check import check

    with progress("headers") as bar:
        findings = check(root, bar)
    if json:
        emit({"root": str(root), "findings": findings})
        return
    for finding in findings:
        line(finding)
    say(f"{root}: {len(findings)} findings" if findings else f"{root}: nothing found wrong")

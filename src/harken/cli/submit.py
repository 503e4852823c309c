"""harken submit: write a challenge submission from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, line, say


def submit(
    run: Annotated[Path | None, typer.Argument(help="Folder of a run, or of one system's score files.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The zip to write.")] = Path("submission.zip"),
    label: Annotated[str, typer.Option(help="Lastname_ABBR_task2; systems are numbered.")] = "",
    meta: Annotated[Path | None, typer.Option(help="Authors and system names (YAML); see --template.")] = None,
    system: Annotated[
        list[str] | None, typer.Option(help="A system of the run, such as mse or mse/seed_1; repeat, up to four.")
    ] = None,
    set_: Annotated[str | None, typer.Option("--data-set", help="Data set, such as 'dcase2025 eval'.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data or clips table to check plain score files against.")] = None,
    report: Annotated[Path | None, typer.Option(help="Technical report (pdf).")] = None,
    template: Annotated[bool, typer.Option("--template", help="Print a template for --meta and exit.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Write a zip of score files, decisions and meta.yaml in the official layout, checked against the rules."""
    from harken.bench.submit import entries_of
    from harken.core.errors import HarkenError
    from harken.evaluation.scores import in_brackets
    from harken.evaluation.submission import TEMPLATE, read_meta, system_of, write_submission

    if template:
        line(TEMPLATE, end="")
        return
    if run is None:
        raise HarkenError("no run given", next_step="Give a folder that harken run wrote")
    content = read_meta(meta) if meta else {}
    entries, clips = entries_of(run, systems=system, label=set_, data=data, meta=content)
    names = write_submission(entries, label, clips, out, report=report)
    labelled = sum(clip.condition != "unknown" for clip in clips)
    if labelled == len(clips):
        say("note: the names of these clips carry labels: this is development data")
    marks: dict[str, dict[str, str]] = {}
    for number, entry in enumerate(entries, start=1):
        marks[entry.name] = dict(system_of(entry).marks)
        say(f"{label}_{number}: {entry.name}{in_brackets(marks[entry.name])}")
        for mark, reason in marks[entry.name].items():
            say(f"note: {entry.name}: {mark}: {reason}")
    say(f"{out}: {len(names)} files, {len(clips)} test clips, {len(entries)} systems")
    if json:
        emit({"zip": str(out), "systems": [entry.name for entry in entries], "marks": marks, "files": names})

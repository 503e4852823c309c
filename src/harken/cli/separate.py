"""harken separate: the machine without the factory, and the factory without the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, line, progress, say
from harken.core.names import shown


def separate(
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.", show_default=False)],
    model: Annotated[
        Path, typer.Option("--model", "-m", help="A separator: of a run, or a SepReformer.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is written.", show_default=False)],
    wav: Annotated[bool, typer.Option("--wav", help="Write WAV files of floats instead of FLAC.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per recording.")] = False,
) -> None:
    """Separate recordings into machine and noise, which add up to them."""
    from harken.audio.suffixes import DEFAULT_SUFFIXES
    from harken.core.errors import HarkenError
    from harken.data.folders import recordings_of
    from harken.separation.recordings import separate_files
    from harken.separation.separator import load_separator

    if output.exists() and not output.is_dir():
        raise HarkenError("is a file", file=output, next_step="Name a folder (-o)")
    given = recordings_of(paths, DEFAULT_SUFFIXES)
    for note in given.notes:
        say(f"note: {note}")
    files = given.files
    separator = load_separator(model)
    with progress("separating") as update:
        rows = separate_files(files, separator, output, file_format="wav" if wav else "flac", progress=update)
    for row in rows:
        if row.error is not None:
            say(f"harken: {row.error}")
        elif json:
            emit({
                "recording": str(row.recording), "machine": str(row.machine), "noise": str(row.noise),
                "machine_dbfs": row.machine_dbfs, "noise_dbfs": row.noise_dbfs,
            })  # fmt: skip
        else:
            levels = [
                f"{name} {level:.1f} dBFS"
                for name, level in (("machine", row.machine_dbfs), ("noise", row.noise_dbfs))
                if level is not None
            ]
            line(f"{shown(row.recording)}: {', '.join(levels)}")
    say(f"written to {shown(output)}")
    if any(row.error is not None for row in rows):
        raise typer.Exit(2)

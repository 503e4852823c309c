"""harken monitor install: a unit of systemd, to be read before it is installed."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import line, say


def install(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="The configuration of the monitor.", show_default=False)
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write (default: print it).")] = None,
    user: Annotated[str | None, typer.Option(help="User that it runs as (default: one that systemd makes).")] = None,
) -> None:
    """Write a hardened unit of systemd for review; nothing is installed."""
    from harken.core.errors import writing
    from harken.core.files import write_atomically
    from harken.service.configuration.read import read_configuration
    from harken.service.unit import unit_name, unit_text

    configuration = read_configuration(config)
    # That of this installation, which need not be on the path.
    beside = Path(sysconfig.get_path("scripts")) / "harken"
    program = beside if beside.exists() else Path(shutil.which("harken") or sys.argv[0]).absolute()
    text = unit_text(config.absolute(), configuration, program, user=user)
    if output is None:
        line(text, end="")
        return
    with writing(output, "Choose another place"):
        write_atomically(output, text.encode())
    say(f"wrote {output}; read it, then copy it to /etc/systemd/system/{unit_name(configuration)}")

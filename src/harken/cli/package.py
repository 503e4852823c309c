"""harken package: a system of a run -> a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, progress, say
from harken.cli.recording_options import Workers


def package(
    run: Annotated[Path, typer.Argument(help="Folder of a run: WORKSPACE/runs/NAME.", show_default=False)],
    system: Annotated[str, typer.Argument(help="A system or an ensemble of the run.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model to write.", show_default=False)],
    machine: Annotated[str | None, typer.Option(help="Machine, if there are several.")] = None,
    data_set: Annotated[str | None, typer.Option(help="Data set of the run, such as 'dcase2025 dev'.")] = None,
    section: Annotated[str | None, typer.Option(help="Section, if each has a separate detector.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training, if there are several.")] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="Workspace of the run (default: the one it is in).", show_default=False)
    ] = None,
    embed_weights: Annotated[
        bool, typer.Option("--embed-weights", help="Copy large weights of the catalogue into the model.")
    ] = False,
    workers: Workers = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Package a system of a run as a model for harken score and explain; its scores equal those of the run."""
    from harken.bench.package import package as make
    from harken.monitor.stored import save_fitted

    with progress("listening") as bar:
        fitted = make(
            run,
            system,
            workspace=workspace,
            machine=machine,
            data_set=data_set,
            section=section,
            seed=seed,
            workers=workers,
            progress=bar,
        )
    save_fitted(output, fitted, embed_weights=embed_weights)
    for note in fitted.notes:
        say(f"note: {note}")
    say(f"packaged {system}, which learned from {len(fitted.training.names)} recordings: {output}")
    if json:
        emit(
            {
                "model": str(output),
                "system": system,
                "recordings": len(fitted.training.names),
                "false_alarms": fitted.false_alarms,
                "notes": list(fitted.notes),
            }
        )

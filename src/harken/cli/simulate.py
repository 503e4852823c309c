"""harken simulate: a small plant in the layout of DCASE 2025 Task 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, progress, say


def simulate(
    directory: Annotated[Path, typer.Argument(help="Where to write.", show_default=False)],
    machines: Annotated[list[str] | None, typer.Option("--machine", help="One machine type; repeat for more.")] = None,
    train_source: Annotated[int, typer.Option(help="Normal training clips of the source domain.", min=1)] = 990,
    train_target: Annotated[int, typer.Option(help="Normal training clips of the target domain.", min=0)] = 10,
    test: Annotated[int, typer.Option(help="Test clips of each domain and condition.", min=1)] = 50,
    supplemental: Annotated[int, typer.Option(help="Clean or noise clips.", min=0)] = 100,
    seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 10.0,
    far_microphone: Annotated[bool, typer.Option("--far-microphone", help="A second channel far away (2026).")] = False,
    noise_db: Annotated[float, typer.Option(help="Factory noise, relative to each machine's usual level.")] = 0.0,
    hide_attributes: Annotated[list[str] | None, typer.Option(help="A machine without attributes; repeat.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another plant.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Simulate machines in a plant: normal and faulty, source and target domain, with noise."""
    from harken.plant import simulate as make

    with progress("simulating") as bar:
        files = make(
            directory,
            machines=machines or None,
            train_source=train_source,
            train_target=train_target,
            test_per_condition=test,
            supplemental=supplemental,
            seconds=seconds,
            far_microphone=far_microphone,
            noise_db=noise_db,
            hide_attributes=hide_attributes or (),
            seed=seed,
            progress=bar,
        )
    found = sorted({file.relative_to(directory).parts[0] for file in files})
    say(f"{len(files)} files of {len(found)} machines ({', '.join(found)}): {directory}")
    if json:
        emit({"directory": str(directory), "machines": found, "files": len(files)})

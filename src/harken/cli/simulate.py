"""harken simulate: a small plant in the layout of DCASE 2025 Task 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, progress, say


def simulate(
    directory: Annotated[Path, typer.Argument(help="Output folder.", show_default=False)],
    machines: Annotated[list[str] | None, typer.Option("--machine", help="Machine type; repeat for several.")] = None,
    train_source: Annotated[int, typer.Option(help="Normal training clips of the source domain.", min=1)] = 990,
    train_target: Annotated[int, typer.Option(help="Normal training clips of the target domain.", min=0)] = 10,
    test: Annotated[int, typer.Option(help="Test clips per domain and condition.", min=1)] = 50,
    supplemental: Annotated[int, typer.Option(help="Supplemental clips (clean or noise only).", min=0)] = 100,
    seconds: Annotated[float, typer.Option(help="Clip length in seconds.")] = 10.0,
    far_microphone: Annotated[bool, typer.Option("--far-microphone", help="Add a distant microphone (2026).")] = False,
    noise_db: Annotated[float, typer.Option(help="Level of the factory noise in dB relative to the default.")] = 0.0,
    hide_attributes: Annotated[list[str] | None, typer.Option(help="Machine without attributes; repeat.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
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
    machine_names = sorted({file.relative_to(directory).parts[0] for file in files})
    say(f"{len(files)} files of {len(machine_names)} machines ({', '.join(machine_names)}): {directory}")
    if json:
        emit({"directory": str(directory), "machines": machine_names, "files": len(files)})

"""harken model: what a fitted model is, and what its alarm is set to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, line, say

app = typer.Typer(help="Show a model, or set its alarm.", no_args_is_help=True)

Model = Annotated[Path, typer.Argument(help="A model made by harken fit.", show_default=False)]


@app.command()
def show(
    model: Model,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a model learned from and what its alarm is set to."""
    from harken.monitor.detector import Detector

    detector = Detector.load(model)
    if json:
        spec = detector.spec
        emit(
            {
                "model": str(model),
                "encoder": spec.encoder,
                "layer": spec.layer,
                "detector": detector.detector.name,
                "sample_rate": spec.sample_rate,
                "channels": spec.channels,
                "recordings": len(detector.training.names),
                "notes": list(detector.notes),
                **detector.alarm.as_json(),
            }
        )
        return
    line(repr(detector))
    for note in detector.notes:
        line(f"note: {note}")
    for sentence in detector.alarm.sentences():
        line(sentence)


@app.command("set-alarm")
def set_alarm(
    model: Model,
    false_alarms: Annotated[str, typer.Option(help="False-alarm rate: auto, 0.1%, 1 in 500, 1/week.")] = "auto",
    every: Annotated[
        str | None, typer.Option(help="From the beginning of one recording to that of the next: 10min; else gapless.")
    ] = None,
) -> None:
    """Set the alarm of a model; nothing else of it changes."""
    from harken.monitor.changes import alarm_model
    from harken.monitor.detector import Detector

    change = alarm_model(model, false_alarms, every, who=login(), why="")
    for sentence in Detector(change.fitted).alarm.sentences():
        say(sentence)


def login() -> str:
    """Name of who runs the command, as the system has it."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"

"""harken plot: figures of a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import say


class FigureKind(StrEnum):
    """Figures that can be drawn from a run."""

    embedding = "embedding"
    roc = "roc"
    det = "det"
    history = "history"


def plot(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The figure: .png or .svg.", show_default=False)],
    kind: Annotated[
        FigureKind, typer.Option(help="t-SNE of embeddings, ROC or DET curves, history of a training.")
    ] = FigureKind.roc,
    stage: Annotated[str | None, typer.Option(help="Stage to draw (default: the first).")] = None,
    machine: Annotated[str | None, typer.Option(help="Only this machine.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed (default: the first).")] = None,
    workspace: Annotated[Path | None, typer.Option(help="Workspace of a run that was copied.")] = None,
) -> None:
    """Draw a figure from the results of a run."""
    from harken.bench.plot import plot as draw
    from harken.bench.plot import save_figure
    from harken.bench.reading import load_run

    save_figure(draw(load_run(run, workspace), kind.value, stage=stage, machine=machine, seed=seed), output)
    say(f"{output}")

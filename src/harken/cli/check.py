"""harken check: a model on recordings whose condition is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, say
from harken.cli.fit import Formats


def check(
    models: Annotated[list[Path], typer.Argument(help="Models made by harken fit.", show_default=False)],
    normal: Annotated[list[Path], typer.Option(help="New normal recordings, or folders of them.", show_default=False)],
    faulty: Annotated[list[Path], typer.Option(help="Recordings of known faults, or folders.", show_default=False)],
    store: Annotated[Path | None, typer.Option(help="Folder that keeps embeddings for the next run.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (default: one per core).", min=1)] = None,
    formats: Annotated[
        Formats, typer.Option(help="default: WAV and FLAC; all: any format of libsndfile.")
    ] = Formats.default,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per model.")] = False,
) -> None:
    """Count false alarms and faults found on recordings of known condition; several models side by side.

    The normal ones must be others than the model learned from.
    """
    from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES
    from harken.data.clips import find_recordings
    from harken.monitor.check import check as check_model
    from harken.monitor.check import table
    from harken.monitor.detector import Detector

    every_format = formats is Formats.all
    suffixes = ALL_SUFFIXES if every_format else DEFAULT_SUFFIXES
    fine, bad = find_recordings(normal, suffixes), find_recordings(faulty, suffixes)
    checks = [
        check_model(Detector.load(model), fine, bad, store=store, workers=workers, all_formats=every_format)
        for model in models
    ]
    for model, result in zip(models, checks, strict=True):
        if json:
            emit({"model": str(model), **result.as_json()})
        if result.not_judged:
            say(f"{model.name}: {result.not_judged} recordings were not judged; harken score tells why")
    if not json:
        for line in table(checks, [model.name for model in models]):
            print(line)
        for model, result in zip(models, checks, strict=True):
            print(f"{model.name}: faults differ {result.separates}")

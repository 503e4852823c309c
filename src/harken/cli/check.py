"""harken check: a model on recordings whose condition is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, line, say
from harken.cli.recording_options import AudioFormats, Formats, Store, Workers, suffixes_of


def check(
    models: Annotated[list[Path], typer.Argument(help="Models made by harken fit.", show_default=False)],
    normal: Annotated[list[Path], typer.Option(help="New normal recordings, or folders of them.", show_default=False)],
    faulty: Annotated[list[Path], typer.Option(help="Recordings of known faults, or folders.", show_default=False)],
    store: Store = None,
    workers: Workers = None,
    formats: AudioFormats = Formats.default,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per model.")] = False,
) -> None:
    """Count false alarms and faults found on recordings of known condition; several models side by side.

    The normal ones must be others than the model learned from.
    """
    from harken.data.folders import find_recordings
    from harken.monitor.check import check as check_model
    from harken.monitor.check import table
    from harken.monitor.detector import Detector

    suffixes = suffixes_of(formats)
    fine, bad = find_recordings(normal, suffixes), find_recordings(faulty, suffixes)
    checks = [
        check_model(Detector.load(model), fine, bad, store=store, workers=workers, all_formats=formats is Formats.all)
        for model in models
    ]
    for model, result in zip(models, checks, strict=True):
        if json:
            emit({"model": str(model), **result.as_json()})
        if result.normal + result.faulty + result.not_judged > len(fine) + len(bad):
            say(f"{model.name}: long recordings are judged in segments, each of which counts as one")
        if result.learned:
            say(
                f"{model.name}: learned from {result.learned} of these recordings, which count with their held-out "
                "scores: what new ones would do, new ones tell"
            )
        if result.not_judged:
            recordings = "1 recording was" if result.not_judged == 1 else f"{result.not_judged} recordings were"
            say(f"{model.name}: {recordings} not judged; harken score tells why")
    if not json:
        for text in table(checks, [model.name for model in models]):
            line(text)
        for model, result in zip(models, checks, strict=True):
            line(f"{model.name}: faults differ {result.separates}")
            if result.missing is not None:
                line(f"{model.name}: {result.missing}")

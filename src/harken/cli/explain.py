"""harken explain: a picture of why a recording got its score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, say


def explain(
    clip: Annotated[Path, typer.Argument(help="A recording.", show_default=False)],
    model: Annotated[Path, typer.Option("--model", "-m", help="A model made by harken fit.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Plot a recording, its nearest normal recording and their difference; of a long one, the worst segment."""
    from harken.core.errors import HarkenError
    from harken.monitor.detector import Detector
    from harken.monitor.plot import save_png, why_figure
    from harken.monitor.verdict import gravest

    detector = Detector.load(model)
    verdict = gravest(detector.score_many([clip], workers=1))
    if verdict.error is not None:
        raise verdict.error
    if verdict.explanation is None:
        raise HarkenError(f"is not judged: {verdict.why}", file=clip, next_step="Give another recording")
    save_png(why_figure(detector, verdict), output)
    times = "" if verdict.start_s is None else f"{verdict.start_s:.4g}-{verdict.end_s:.4g} s: "
    say(f"{times}{verdict.kind} ({verdict.rank}): {verdict.why}")
    say(f"picture: {output}")
    if json:
        emit(verdict.as_json())

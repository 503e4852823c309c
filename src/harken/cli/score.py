"""harken score: recordings and a model -> scores, p-values, alarms and reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, progress, say
from harken.cli.fit import Formats


def score(
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.", show_default=False)],
    model: Annotated[Path, typer.Option("--model", "-m", help="A model made by harken fit.", show_default=False)],
    false_alarms: Annotated[str | None, typer.Option(help="False-alarm rate (default: that of the model).")] = None,
    fail_on_anomaly: Annotated[bool, typer.Option("--fail-on-anomaly", help="Exit with 1 on an anomaly.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if any recording cannot be scored.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write an HTML report.")] = None,
    store: Annotated[Path | None, typer.Option(help="Folder that keeps embeddings for the next run.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (default: one per core).", min=1)] = None,
    formats: Annotated[
        Formats, typer.Option(help="default: WAV and FLAC; all: any format of libsndfile.")
    ] = Formats.default,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Score recordings, one line per recording, in order. Higher scores are more anomalous."""
    from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES
    from harken.core.errors import HarkenError
    from harken.data.clips import find_recordings
    from harken.evaluation.scores import MARKS
    from harken.monitor.detector import Detector
    from harken.monitor.verdict import shifted

    every = formats is Formats.all
    files = find_recordings(paths, ALL_SUFFIXES if every else DEFAULT_SUFFIXES)
    detector = Detector.load(model)
    if false_alarms is not None:
        detector.set_false_alarms(false_alarms)
    for note in detector.notes:
        if note.startswith(MARKS):
            say(f"note: {note}")
    p_values: list[float] = []
    alarms = failed = 0
    kept = []
    with progress("scoring") as bar:
        for done, verdict in enumerate(
            detector.score_many(files, store=store, workers=workers, all_formats=every), start=1
        ):
            bar(done, len(files))
            if report is not None:
                kept.append(verdict)
            if verdict.error is not None:
                failed += 1
                say(f"not scored: {verdict.error}")
            else:
                alarms += bool(verdict.is_anomaly)
                p_values.append(float(verdict.p_value or 0.0))
                for warning in verdict.warnings:
                    say(f"warning: {verdict.path}: {warning}")
            if json:
                emit(verdict.as_json())
            elif verdict.error is None:
                word = "ANOMALY" if verdict.is_anomaly else "normal "
                chance = f"p={verdict.p_value:.2g}{'*' if verdict.extrapolated else ''}"
                print(f"{word}  {verdict.score:8.4g}  {chance:<10} {verdict.path}  {verdict.why}", flush=True)
    extrapolated = detector.calibration.extrapolated(detector.rate)
    say(
        f"{len(p_values)} scored, {alarms} alarms, {failed} not scored; false-alarm rate "
        f"{detector.false_alarms}"
        + (" [extrapolated]" if extrapolated else "")
        + ("" if json else "; * = p-value extrapolated")
    )
    changed = shifted(p_values)
    if changed:
        say(f"note: {changed}")
    if report is not None:
        from harken.monitor.report import ReportSection, write_report

        write_report(report, f"Harken: {model.name}", [ReportSection(model.name, detector, kept)])
        say(f"report: {report}")
    if not p_values:
        raise HarkenError("no recording could be scored", next_step="See the messages above")
    if strict and failed:
        raise typer.Exit(2)
    if fail_on_anomaly and alarms:
        raise typer.Exit(1)

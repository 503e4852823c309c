"""harken report: the report of a run, or of recordings that were scored, made again from what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harken.cli.console import line

if TYPE_CHECKING:
    from harken.monitor.verdict import Verdict


def report(
    results: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, folder of harken score --results, or file of its --json lines.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The report: .html (default: beside the results).")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Of recordings that were scored: the model.")
    ] = None,
    normal: Annotated[Path | None, typer.Option(help="With a model: its normal recordings, to be heard.")] = None,
    false_alarms: Annotated[str | None, typer.Option(help="With a model: as the recordings were scored.")] = None,
    every: Annotated[str | None, typer.Option(help="With a model: as the recordings were scored.")] = None,
    worst: Annotated[int, typer.Option(help="With a model: recordings to be seen and heard.", min=0)] = 5,
    truth: Annotated[Path | None, typer.Option(help="Of a run: its ground truth, if it was given one.")] = None,
) -> None:
    """Make a report again: one HTML file that needs no other.

    Of a run, it is the file that the run has written. Of recordings, it is that of harken score --report: nothing is
    judged again but the recordings that are shown.
    """
    from harken.core.errors import HarkenError

    if (results / "results.json").is_file():
        if model is not None or normal is not None or false_alarms is not None or every is not None:
            raise HarkenError("a run has no model of recordings", next_step="Leave out --model and what belongs to it")
        path = output or results / "report.html"
        _of_run(results, path, truth)
    else:
        if model is None:
            raise HarkenError(
                "is not a run; of recordings that were scored, the model is needed", file=results,
                next_step="Give the folder of a run below WORKSPACE/runs, or add --model",
            )  # fmt: skip
        if truth is not None:
            raise HarkenError("--truth is for a run", next_step="Leave it out")
        path = output or (results / "report.html" if results.is_dir() else results.with_suffix(".html"))
        _of_recordings(results, path, model, normal, false_alarms, every, worst)
    line(f"{path}")


def _of_run(folder: Path, path: Path, truth: Path | None) -> None:
    from harken.bench.report import report_page
    from harken.bench.stored_run import stored_run
    from harken.core.pages import check_page
    from harken.data.truth import read_truth
    from harken.monitor.report import write_page

    check_page(path)
    write_page(path, report_page(stored_run(folder, None if truth is None else read_truth(truth))))


def _of_recordings(
    results: Path, path: Path, model: Path, normal: Path | None, false_alarms: str | None, every: str | None, worst: int
) -> None:
    from harken.core.pages import check_page
    from harken.monitor.detector import Detector
    from harken.monitor.report import ReportSection, write_report
    from harken.monitor.stored_verdicts import judging_again, stored_verdicts

    check_page(path)
    detector = Detector.load(model)
    if false_alarms is not None or every is not None:
        detector.set_alarm(false_alarms or detector.fitted.false_alarms, every or detector.fitted.every)
    sequence = detector.sequence()
    changes = []

    def verdicts() -> Iterator[Verdict]:
        for verdict in stored_verdicts(results):
            change = sequence.update(verdict)
            if change is not None:
                changes.append(change)
            yield verdict

    section = ReportSection(
        model.name, detector, verdicts(), changes=changes, normal_folder=normal, judged_again=judging_again(detector)
    )
    write_report(path, f"Harken: {model.name}", [section], worst=worst)

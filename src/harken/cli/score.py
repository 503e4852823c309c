"""harken score: recordings and a model -> scores, p-values, alarms and reasons."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from harken.cli.console import emit, line, progress, say
from harken.cli.recording_options import AudioFormats, Formats, RecordingOrder, Store, Workers, suffixes_of
from harken.core.names import shown

if TYPE_CHECKING:
    from harken.monitor.verdict import Verdict


def score(
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.", show_default=False)],
    model: Annotated[Path, typer.Option("--model", "-m", help="A model made by harken fit.", show_default=False)],
    false_alarms: Annotated[str | None, typer.Option(help="False-alarm rate (default: that of the model).")] = None,
    every: Annotated[
        str | None, typer.Option(help="From the beginning of one recording to that of the next (default: the model's).")
    ] = None,
    order: Annotated[
        RecordingOrder,
        typer.Option(help="Order of recording, as of harken fit; none: recordings are not judged together."),
    ] = RecordingOrder.auto,
    memory: Annotated[
        Path | None, typer.Option(help="File that remembers the recordings judged so far, for the next call.")
    ] = None,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option(
            "--fail-on-anomaly", help="Exit with 1 on an alarm, a lasting change, or recordings that differ as a whole."
        ),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if any recording cannot be scored.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write an HTML report.")] = None,
    normal: Annotated[
        Path | None, typer.Option(help="Folder of the normal recordings, to be heard in the report.")
    ] = None,
    store: Store = None,
    workers: Workers = None,
    formats: AudioFormats = Formats.default,
    results: Annotated[
        Path | None, typer.Option(help="Folder of tables by day (Parquet) instead of lines; goes on where it stopped.")
    ] = None,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="With --results: where recordings are judged.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: host:port, ray://host:port or auto (default: on this machine).")
    ] = None,
    task_cpus: Annotated[float, typer.Option(help="With ray: CPUs per task, such as 0.5.")] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Judge recordings, one line per recording, in order; of one over a minute, per segment. Higher scores are more
    anomalous.

    normal: as normal recordings; suspect: scores above every normal recording; alarm: above the alarm threshold;
    not judged: says nothing about the machine. Recordings are also judged together, in order of time: a lasting change
    is reported once. Of few that show neither that nor an alarm, it is said if they score higher as a whole; not with
    --memory or --results.
    """
    from harken.core.errors import HarkenError
    from harken.data.chronology import chronology
    from harken.data.folders import recordings_of
    from harken.evaluation.scores import MARKS
    from harken.monitor.as_a_whole import AsAWhole
    from harken.monitor.detector import Detector
    from harken.monitor.sequence import Change, Sequence
    from harken.monitor.verdict import Kind

    _check_archive(results, executor, address, workers, others=memory is not None or report is not None)
    if report is not None:
        from harken.core.pages import check_page

        check_page(report)
    given = recordings_of(paths, suffixes_of(formats))
    for note in given.notes:
        say(f"note: {note}")
    files = given.files
    when = chronology(files, order.value if len(files) > 1 else "none")
    if when.ordered:
        files = [files[row] for row in when.order_N]
    if results is not None:
        from harken.cli.score_archive import Workplace, score_archive
        from harken.monitor.archive import ArchiveSettings

        settings = ArchiveSettings(model.absolute(), false_alarms, every, formats is Formats.all, store)
        score_archive(
            files, results.absolute(), settings, Workplace(executor, workers, address, task_cpus),
            changes=order is not RecordingOrder.none, json=json, strict=strict, fail_on_anomaly=fail_on_anomaly,
        )  # fmt: skip
        return
    detector = Detector.load(model)
    if false_alarms is not None or every is not None:
        fitted = detector.fitted
        detector.set_alarm(false_alarms or fitted.false_alarms, every or fitted.every)
    for note in detector.notes:
        if note.startswith(MARKS):
            say(f"note: {note}")
    counts = dict.fromkeys(get_args(Kind), 0)
    failed = 0
    kept, reported, as_a_whole = [], [], AsAWhole(detector.alarm, detector.fitted.training.domains)
    warned: set[tuple[Path, str]] = set()
    with ExitStack() as stack:
        sequence = (
            detector.sequence()
            if memory is None
            else stack.enter_context(
                Sequence.remembered(memory, detector.alarm, lambda: say(f"waiting for another harken score: {memory}"))
            )
        )
        with progress("scoring") as bar:
            for verdict in detector.score_many(
                files, store=store, workers=workers, all_formats=formats is Formats.all, progress=bar
            ):
                if report is not None:
                    kept.append(verdict)
                counts[verdict.kind] += 1
                failed += verdict.error is not None
                change = None if order is RecordingOrder.none else sequence.update(verdict)
                as_a_whole.add(verdict)
                _print(verdict, json, warned)
                if change is not None:
                    reported.append(change)
                    emit(change.as_json()) if json else line(f"changed     {change.sentence}")
    differ = as_a_whole.differ and memory is None and not (reported or counts["alarm"])
    if differ:
        emit(as_a_whole.as_json()) if json else line(f"as a whole  {as_a_whole.sentence}")
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    began = sum(change.state == "began" for change in reported)
    still = f"; sounds different since {sequence.changed}" if sequence.changed else ""
    judged = sum(counts.values())
    verdicts = f", {judged} verdicts" if judged > len(files) else ""
    say(f"{len(files)} recording{'s' * (len(files) != 1)}{verdicts}: {summary}{still}")
    if json:
        emit(
            {
                "record": "summary",
                "recordings": len(files),
                "verdicts": judged,
                **{kind.replace(" ", "_"): count for kind, count in counts.items()},
                "not_scored": failed,
                "changes": began,
                "changed_since": sequence.changed,
                "differ_as_a_whole": differ,
                "rate": detector.alarm.rate,
                "threshold": detector.threshold,
            }
        )
    if report is not None:
        from harken.monitor.report import ReportSection, write_report

        changes: list[Change | AsAWhole] = [*reported, *([as_a_whole] if differ else [])]
        section = ReportSection(model.name, detector, kept, changes=changes, normal_folder=normal)
        write_report(report, f"Harken: {model.name}", [section])
        say(f"report: {report}")
    if failed == judged:
        raise HarkenError("no recording could be scored", next_step="See the messages above")
    if strict and failed:
        raise typer.Exit(2)
    if fail_on_anomaly and (counts["alarm"] or began or sequence.changed or differ):
        raise typer.Exit(1)


def _check_archive(
    results: Path | None, executor: str, address: str | None, workers: int | None, *, others: bool
) -> None:
    """Raise HarkenError for options that do not go together. others: whether some that need all verdicts are given."""
    from harken.core.errors import HarkenError

    if results is None and (executor != "local" or address is not None):
        raise HarkenError("--executor and --address need --results", next_step="Give a folder for tables by day")
    if results is not None and others:
        raise HarkenError("--results writes tables, no report or memory", next_step="Leave out --report and --memory")
    if executor == "local" and address is not None:
        raise HarkenError("--address is for a Ray cluster", next_step="Add --executor ray")
    if address is not None and workers is not None:
        raise HarkenError("--workers is for this machine, not for a cluster", next_step="Leave it out")


def _print(verdict: Verdict, json: bool, warned: set[tuple[Path, str]]) -> None:
    """warned: recordings and warnings that were printed: segments of one recording share theirs."""
    if verdict.error is not None:
        say(f"not scored: {verdict.error}")
    for warning in verdict.warnings:
        if (verdict.path, warning) not in warned:
            warned.add((verdict.path, warning))
            say(f"warning: {shown(verdict.name)}: {warning}")
    if json:
        emit(verdict.as_json())
    elif verdict.error is None:
        score = "" if verdict.score is None else f"{verdict.score:.4g}"
        line(f"{verdict.kind:<10}  {score:>8}  {verdict.rank:<18} {shown(verdict.name)}  {verdict.why or ''}")

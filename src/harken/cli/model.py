"""harken model: what a fitted model is, what it learns from feedback, its versions, and what its alarm is set to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harken.cli.console import emit, line, progress, say, user_name
from harken.cli.recording_options import AudioFormats, Formats, Store, Workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harken.monitor.basis import Heard
    from harken.monitor.feedback.change import ModelChange
    from harken.monitor.fitted import Fitted
    from harken.monitor.hear import HeardRecordings

app = typer.Typer(help="Show a model, let it learn from feedback, go back, or set its alarm.", no_args_is_help=True)

Model = Annotated[Path, typer.Argument(help="A model made by harken fit.", show_default=False)]
Recordings = Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.", show_default=False)]
Who = Annotated[str | None, typer.Option(help="Who makes the change (default: the login name).", show_default=False)]
Why = Annotated[str, typer.Option(help="Why; kept with the version.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@app.command()
def show(
    model: Model,
    json: AsJson = False,
) -> None:
    """Show what a model learned from, what its alarm is set to, and its versions."""
    from harken.monitor.detector import Detector
    from harken.monitor.versions import list_versions

    detector = Detector.load(model)
    versions, faults = list_versions(model), detector.fitted.faults
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
                "version": versions[-1].number,
                "known_faults": [] if faults is None else list(faults.names),
                "versions": [version.as_json() for version in versions],
            }
        )
        return
    line(repr(detector))
    for note in detector.notes:
        line(f"note: {note}")
    for sentence in detector.alarm.sentences():
        line(sentence)
    if faults is not None:
        old = f", {int(faults.old_F.sum())} of them from before maintenance" if faults.old_F.any() else ""
        line(f"known faults: {len(faults)}{old}")
    line("versions:")
    for version in versions:
        line(f"  {version.sentence}")


@app.command("set-alarm")
def set_alarm(
    model: Model,
    false_alarms: Annotated[str, typer.Option(help="False-alarm rate: auto, 0.1%, 1 in 500, 1/week.")] = "auto",
    every: Annotated[
        str | None, typer.Option(help="From the beginning of one recording to that of the next: 10min; else gapless.")
    ] = None,
    who: Who = None,
    why: Why = "",
) -> None:
    """Set the alarm of a model, as a new version; nothing else of it changes."""
    from harken.monitor.feedback.change import set_alarm as with_alarm
    from harken.monitor.feedback.on_disk import change_model
    from harken.monitor.judged import alarm_of

    change = change_model(model, with_alarm, false_alarms, every, who=who or user_name(), why=why)
    for sentence in alarm_of(change.fitted).sentences():
        say(sentence)


@app.command()
def update(
    model: Model,
    recordings: Recordings,
    fault: Annotated[bool, typer.Option("--fault", help="They are of a fault: keep them, to check versions.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Learn from them although they are like known faults.")
    ] = False,
    who: Who = None,
    why: Why = "",
    store: Store = None,
    workers: Workers = None,
    formats: AudioFormats = Formats.default,
    json: AsJson = False,
) -> None:
    """Learn that recordings were normal, as a new version; or, with --fault, that they are of a fault."""
    from harken.core.errors import HarkenError
    from harken.monitor.feedback.known_faults import add_faults
    from harken.monitor.feedback.on_disk import change_model
    from harken.monitor.feedback.updating import update as learned

    if fault and force:
        raise HarkenError("--force is for normal recordings", next_step="Leave out --fault, or --force")
    given = _hear(model, recordings, not fault, store, workers, formats)
    name, origin = who or user_name(), _origin(recordings)
    if fault:
        change = change_model(model, add_faults, given.heard, who=name, why=why, origin=origin)
    else:
        change = change_model(model, learned, given.heard, who=name, why=why, origin=origin, force=force)
    _report(model, change, json)


@app.command()
def rebaseline(
    model: Model,
    recordings: Recordings,
    who: Who = None,
    why: Why = "",
    store: Store = None,
    workers: Workers = None,
    formats: AudioFormats = Formats.default,
    json: AsJson = False,
) -> None:
    """Learn the normal sound anew from these recordings alone, as after maintenance; as a new version."""
    from harken.monitor.feedback.on_disk import change_model
    from harken.monitor.feedback.rebaselining import rebaseline as with_baseline

    given = _hear(model, recordings, True, store, workers, formats)
    change = change_model(
        model, with_baseline, given.heard, who=who or user_name(), why=why, origin=_origin(recordings)
    )
    _report(model, change, json)


@app.command()
def diff(
    model: Model,
    first: Annotated[
        int | None, typer.Argument(help="A version (default: the one before).", show_default=False)
    ] = None,
    second: Annotated[int | None, typer.Argument(help="A version (default: in use).", show_default=False)] = None,
    on: Annotated[
        list[Path] | None, typer.Option("--on", help="Recordings, or folders of them, to judge; repeatable.")
    ] = None,
    heard_by: Annotated[
        str | None,
        typer.Option(help="Not recordings, but what a monitor has heard: its store, a folder or postgresql://..."),
    ] = None,
    machine: Annotated[str | None, typer.Option(help="Name of the machine, with --heard-by.")] = None,
    since: Annotated[str, typer.Option(help="With --heard-by: since a time (UTC), or a period, such as 30d.")] = "7d",
    store: Store = None,
    workers: Workers = None,
    formats: AudioFormats = Formats.default,
    json: AsJson = False,
) -> None:
    """Compare two versions of a model on recordings: how many alarms each raises, and where they differ."""
    from harken.core.errors import HarkenError
    from harken.monitor.feedback.difference import compare_versions
    from harken.monitor.stored import load_fitted
    from harken.monitor.versions import list_versions, version_before

    if not on and not (heard_by and machine):
        raise HarkenError(
            "no recordings were given", next_step="Name some: --on RECORDINGS, or --heard-by STORE --machine NAME"
        )
    number = version_before(list_versions(model)).number if first is None else first
    versions = load_fitted(model, number), load_fitted(model, second)
    if heard_by and machine:
        heard = _heard_by_monitor(heard_by, machine, since, versions[1])
    else:
        heard = _hear(model, on or [], False, store, workers, formats).heard
    difference = compare_versions(*versions, heard)
    if json:
        emit({"model": str(model), **difference.as_json()})
        return
    for sentence in difference.sentences():
        line(sentence)


@app.command()
def rollback(
    model: Model,
    to: Annotated[int | None, typer.Option(help="Version to go back to (default: the one before).")] = None,
    who: Who = None,
    why: Why = "",
    json: AsJson = False,
) -> None:
    """Use an earlier version of a model again, as a new version; known faults stay."""
    from harken.monitor.feedback.on_disk import roll_back

    _report(model, roll_back(model, who=who or user_name(), why=why, to=to), json)


def _hear(
    model: Path, recordings: list[Path], normal: bool, store: Path | None, workers: int | None, formats: Formats
) -> HeardRecordings:
    from harken.monitor.hear import hear
    from harken.monitor.normal_set import by_reason, listed
    from harken.monitor.stored import load_fitted

    with progress("listening") as bar:
        given = hear(
            load_fitted(model),
            recordings,
            normal=normal,
            store=store,
            workers=workers,
            all_formats=formats is Formats.all,
            progress=bar,
        )
    for reason, paths in by_reason(given.set_aside).items():
        say(f"set aside: {listed([str(path) for path in paths])}: {reason}")
    return given


def _heard_by_monitor(place: str, machine: str, since: str, fitted: Fitted) -> Sequence[Heard]:
    from harken.cli.monitor_asked import check_machine, opened
    from harken.cli.monitor_teach import time_of
    from harken.service.kept_features import features_name
    from harken.service.learning import heard_windows
    from harken.service.version_counts import windows_since

    store = opened(place, None)
    check_machine(store, machine)
    return heard_windows(windows_since(store, machine, features_name(fitted.spec), time_of(since)))


def _origin(recordings: list[Path]) -> str:
    from harken.monitor.normal_set import listed

    return listed([str(path) for path in recordings])[:1000]


def _report(model: Path, change: ModelChange, json: bool) -> None:
    """What a change did: sentences for people, and JSON where it was asked for."""
    from harken.monitor.normal_set import listed

    version, effect = change.version, change.effect
    names_of: dict[str, list[str]] = {}
    for name, reason in effect.set_aside:
        names_of.setdefault(reason, []).append(name)
    for reason, names in names_of.items():
        say(f"set aside: {listed(names)}: {reason}")
    for sentence in effect.sentences():
        say(sentence)
    say(f"version {version.number} of {model} is in use; harken model rollback undoes it")
    if json:
        details: dict[str, Any] = version.as_json()
        emit({"model": str(model), **details})

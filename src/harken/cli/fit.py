"""harken fit: normal recordings -> a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, key_values, progress, say
from harken.cli.recording_options import AudioFormats, Formats, RecordingOrder, Store, Workers


class Level(StrEnum):
    """Whether clips are normalised to one level, or loudness counts."""

    normalised = "normalised"
    recorded = "recorded"


class Microphones(StrEnum):
    """Channels to use: all, one of them, or the near one with the far one's noise removed."""

    all = "all"
    near = "near"
    far = "far"
    cancelled = "cancelled"
    subtracted = "subtracted"


def fit(
    normal: Annotated[list[Path], typer.Argument(help="Normal recordings, or folders of them.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model to write.", show_default=False)],
    false_alarms: Annotated[
        str, typer.Option(help="False-alarm rate: auto (the rarest that still finds faults), 0.1%, 1 in 500, 1/week.")
    ] = "auto",
    every: Annotated[
        str | None, typer.Option(help="From the beginning of one recording to that of the next: 10min; else gapless.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="An encoder that harken doctor lists.")] = "spectral",
    weights: Annotated[str | None, typer.Option(help="Encoder weights: a catalogue name or a file.")] = None,
    layer: Annotated[str | None, typer.Option(help="Encoder layer (default: the encoder's best).")] = None,
    pooling: Annotated[str | None, typer.Option(help="mean, std, max, variation; joined by +.")] = None,
    level: Annotated[Level, typer.Option(help="normalised: ignore loudness; recorded: keep it.")] = Level.normalised,
    microphones: Annotated[
        Microphones, typer.Option(help="Channels to use; cancelled: near, with the noise of far removed.")
    ] = Microphones.all,
    detector: Annotated[str, typer.Option(help="local_density, knn, mahalanobis, gmm, lof, kmeans.")] = "local_density",
    set_: Annotated[list[str] | None, typer.Option("--set", help="A detector parameter, name=value.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Regular expression; its first group in a file name is the state.")
    ] = None,
    order: Annotated[
        RecordingOrder,
        typer.Option(help="Order of recording: name, time (in names, else of files), none; auto: the best known."),
    ] = RecordingOrder.auto,
    segment: Annotated[
        str,
        typer.Option(help="Cut recordings into so many seconds; auto: those over a minute or of unlike lengths; none."),
    ] = "auto",
    exclude: Annotated[
        list[str] | None, typer.Option(help="A file, folder or pattern of names that is not learned from; repeatable.")
    ] = None,
    off: Annotated[
        list[Path] | None,
        typer.Option(help="Recordings, or folders, of the machine switched off: what sounds alike is not judged."),
    ] = None,
    keep_outliers: Annotated[
        bool, typer.Option("--keep-outliers", help="Also learn from recordings that are unlike all others.")
    ] = False,
    store: Store = None,
    report: Annotated[Path | None, typer.Option(help="Also write an HTML report on what was learned from.")] = None,
    embed_weights: Annotated[
        bool, typer.Option("--embed-weights", help="Copy large weights of the catalogue into the model.")
    ] = False,
    workers: Workers = None,
    formats: AudioFormats = Formats.default,
    json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Learn a machine's normal sound from recordings of it. No labels are needed."""
    from harken.core.pages import check_page
    from harken.monitor.detector import Detector
    from harken.monitor.normal_set import by_reason, listed

    if report is not None:
        check_page(report)
    with progress("listening") as bar:
        fitted = Detector.fit(
            normal,
            encoder=encoder,
            weights=weights,
            layer=layer,
            pooling=pooling,
            level=level.value,
            microphones=microphones.value,
            detector=detector,
            parameters=key_values(set_ or []),
            false_alarms=false_alarms,
            every=every,
            states=state,
            order=order.value,
            segment=segment,
            exclude=exclude or (),
            off=off or (),
            keep_outliers=keep_outliers,
            store=store,
            workers=workers,
            all_formats=formats is Formats.all,
            progress=bar,
        )
    replaced = _versions(output)
    fitted.save(output, embed_weights=embed_weights)
    if replaced > 1:
        say(f"replaced a model with {replaced} versions, which are gone, with its known faults: {output}")
    for reason, paths in by_reason(fitted.set_aside).items():
        counted = f" ({len(paths)} recordings)" if len(paths) > 1 else ""
        say(f"set aside: {listed([str(path) for path in paths])}: {reason}{counted}")
    for note in fitted.notes:
        say(f"note: {note}")
    counted = "segments" if fitted.training.segments else "recordings"
    say(f"learned from {len(fitted.training.names)} {counted} ({len(fitted.set_aside)} set aside): {output}")
    for sentence in fitted.alarm.sentences():
        say(sentence)
    if report is not None:
        from harken.monitor.fit_report import write_fit_report

        write_fit_report(report, output.name, fitted)
        say(f"report: {report}")
    if json:
        emit(
            {
                "model": str(output),
                "recordings": len(fitted.training.names),
                "set_aside": [{"file": str(aside.path), "reason": aside.reason} for aside in fitted.set_aside],
                "notes": list(fitted.notes),
                **fitted.alarm.as_json(),
            }
        )


def _versions(model: Path) -> int:
    """How many versions the model there has; 0 for none that can be read."""
    from harken.core.errors import HarkenError
    from harken.monitor.versions import list_versions

    try:
        return len(list_versions(model))
    except HarkenError:
        return 0

"""harken monitor run: sources, models and sinks, from the command line or a file."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harken.cli.console import emit, line
from harken.cli.monitor_page import PageBeside
from harken.cli.monitor_setup import run_set_up
from harken.core.errors import HarkenError

if TYPE_CHECKING:
    from harken.service.configuration.model import Configuration
    from harken.service.monitor import Monitor
    from harken.service.records import HeardWindow
    from harken.service.set_up.run import SetUpRun


#: seconds after SIGTERM or Ctrl-C in which the process ends whatever happens: five, with what its last steps take
_END_S = 4.7
#: folder of what a monitor remembers, in the current one
DEFAULT_STORE = "harken-monitor"


class LogForms(StrEnum):
    """How the monitor logs."""

    text = "text"
    json = "json"


def run(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A folder that something writes recordings into; - for sound on standard input; an address such as "
            "rtsp://HOST/PATH; microphone: or microphone:DEVICE.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="A model made by harken fit.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Several sources, machines and sinks.")] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="A simulated machine in fast motion: a fault develops. About two minutes.")
    ] = False,
    setup: Annotated[
        Path | None,
        typer.Option(
            "--setup",
            help="A folder, empty at first: machines are set up, recorded and learned on the page.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address of the page of --setup (default: this computer alone); others need HARKEN_TOKEN.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the machine (default: that of the model's file).")] = None,
    false_alarms: Annotated[str, typer.Option(help="Rate of false alarms, in time.")] = "1/quarter",
    hop: Annotated[
        str | None, typer.Option(help="From the beginning of one window to that of the next: 10s; else gapless.")
    ] = None,
    rate: Annotated[
        int | None, typer.Option(help="Hz, of raw samples on standard input; without it, a WAV header is expected.")
    ] = None,
    channels: Annotated[int, typer.Option(help="Channels of raw samples.", min=1)] = 1,
    sample_format: Annotated[str, typer.Option(help="Of raw samples, as of arecord -f.")] = "S16_LE",
    store: Annotated[
        str, typer.Option(help="Folder of what the monitor remembers, or postgresql://...")
    ] = DEFAULT_STORE,
    notify: Annotated[
        list[str] | None, typer.Option(help="Address of Apprise that alarms go to, such as ntfys://TOPIC; several.")
    ] = None,
    http: Annotated[int, typer.Option(help="Port of /metrics and /healthz on this computer; 0: none.")] = 0,
    page: Annotated[int, typer.Option(help="Port of the page on this computer; 0: none.")] = 8765,
    once: Annotated[bool, typer.Option("--once", help="End when all that is in the folder was heard.")] = False,
    log: Annotated[LogForms, typer.Option(help="Form of the log on standard error.")] = LogForms.text,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every window.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print each verdict as JSON, one per line.")] = False,
) -> None:
    """Listen until stopped (Ctrl-C, SIGTERM); raise alarms, keep evidence, tell people and systems.

    One machine by SOURCE and --model, or several by --config; SIGHUP reads that file again.
    """
    from harken.service.logs import set_up_logs

    if sum((source is not None, config is not None, setup is not None, demo)) != 1:
        raise HarkenError(
            "needs a source, --config, --setup or --demo",
            next_step="Write, for example: harken monitor recordings/ -m pump.harken",
        )
    if demo:
        set_up_logs(log.value, verbose=verbose)
        _run_demo(Path(store if store != DEFAULT_STORE else f"{DEFAULT_STORE}-demo"))
        return
    if setup is not None:
        set_up_logs(log.value, verbose=verbose)
        with _stopped_by_signals(setup / "plant.yaml") as stopping:
            run_set_up(setup, page, host, stopping)
        return
    if config is None and model is None:
        raise HarkenError("needs a model", next_step="Add -m MODEL, made by harken fit")
    set_up_logs(log.value, journal="JOURNAL_STREAM" in os.environ and not sys.stderr.isatty(), verbose=verbose)
    from harken.service.configuration.read import checked, read_configuration
    from harken.service.monitor import Monitor

    configuration: Configuration
    if config is not None:
        configuration = read_configuration(config)
    else:
        assert source is not None
        assert model is not None
        machine = name or model.name.removesuffix(".harken")
        entry = _source_entry(source, rate, channels, sample_format)
        data: dict[str, Any] = {
            "sources": {machine: entry},
            "machines": {machine: {"source": machine, "model": str(model), "false_alarms": false_alarms, "hop": hop}},
            "sinks": {f"notify{row}": {"kind": "notify", "url": url} for row, url in enumerate(notify or (), 1)},
            "store": store if "://" in store else str(Path(store) / "monitor.db"),
            "http": {"port": http} if http else None,
            "page": {"port": page} if page else None,
        }
        configuration = checked(data, Path.cwd())
    monitor = Monitor(configuration, once=once, heard=_print_json if json else lambda heard: None)
    page_beside = PageBeside(configuration, live=monitor.live)
    with _stopped_by_signals(config) as stopping:
        stopping(monitor)
        try:
            monitor.run()
        finally:
            page_beside.stop()


def _run_demo(folder: Path) -> None:
    from harken.service.demo import Demo

    pages: list[PageBeside] = []
    with _stopped_by_signals() as stopping:

        def started(monitor: Monitor) -> None:
            stopping(monitor)
            pages.append(PageBeside(monitor.configuration, replayed=True, live=monitor.live))

        try:
            over = Demo(folder, line, started=started).run()
        finally:
            for page in pages:
                page.stop()
    if not over:
        raise HarkenError("the demo ended before the machine was normal again", next_step="Run it again")


def _source_entry(source: str, rate: int | None, channels: int, sample_format: str) -> dict[str, Any]:
    if source == "-":
        return {"kind": "pipe", "rate": rate, "channels": channels, "sample_format": sample_format}
    if source.startswith("microphone:"):
        device = source.removeprefix("microphone:")
        return {"kind": "microphone", "device": device or None, "rate": rate}
    if "://" in source:
        return {"kind": "stream", "url": source}
    return {"kind": "folder", "path": source}


def _print_json(heard: HeardWindow) -> None:
    verdict = heard.verdict
    emit({
        **verdict.as_json(), "record": "window", "machine": heard.machine, "number": heard.window.number,
        "start": heard.window.start.isoformat(), "seconds": heard.window.seconds,
    })  # fmt: skip


@contextmanager
def _stopped_by_signals(config: Path | None = None) -> Iterator[Callable[[Monitor | SetUpRun], None]]:
    """Gives a function to call with the monitor: from then on SIGTERM and Ctrl-C end it, in order, and SIGHUP has it
    read its configuration again."""
    before: dict[int, Any] = {}

    def stopping(monitor: Monitor | SetUpRun) -> None:
        def end(number: int, frame: object) -> None:
            if hasattr(signal, "SIGALRM"):
                # Something hangs in a disk or a pipe; all that could be stored is.
                signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
                signal.setitimer(signal.ITIMER_REAL, _END_S)
            monitor.stop(signal.Signals(number).name)

        def reload(number: int, frame: object) -> None:
            if config is not None:
                monitor.reload_from(config)

        handlers = {signal.SIGTERM: end, signal.SIGINT: end}
        if hasattr(signal, "SIGHUP") and config is not None:
            handlers[signal.SIGHUP] = reload
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                before[number] = signal.signal(number, handler)

    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before and hasattr(signal, "SIGALRM"):
            # Python takes its modules apart for a while, in which it calls no handler: the system ends what hangs.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            if signal.getitimer(signal.ITIMER_REAL)[0] > 0.4 * _END_S:
                # Nothing has hung so far, and a slow computer may take its time.
                signal.setitimer(signal.ITIMER_REAL, 2 * _END_S)

"""The command line: one file per verb, no logic beyond it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from harken.cli import (
    check,
    cite,
    compare,
    console,
    data,
    demo,
    doctor,
    ensemble,
    evaluate,
    explain,
    export,
    fit,
    generate,
    model,
    monitor,
    package,
    plan,
    plot,
    recipe,
    report,
    score,
    separate,
    simulate,
    submit,
    weights,
)
from harken.cli import run as run_verb
from harken.cli.empty_words import check_words
from harken.core.errors import HarkenError
from harken.core.extras import missing
from harken.core.memory import keep_freed_memory
from harken.core.names import shown
from harken.core.version import __version__

#: exit code of the shell for a program that Ctrl-C has stopped
INTERRUPTED = 130
#: and for one that was asked to end, by SIGTERM
TERMINATED = 143
#: for a program whose output nobody reads any more
CLOSED_PIPE = 141

_SETTINGS: dict[str, Any] = {
    "name": "harken",
    "help": "Learn a machine's normal sound; detect when it changes.",
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(**_SETTINGS)
app.command("cite")(cite.cite)
app.command("demo")(demo.demo)
app.command("export")(export.export)
app.command("doctor")(doctor.doctor)
app.command("simulate")(simulate.simulate)
app.command("fit")(fit.fit)
app.command("package")(package.package)
app.command("score")(score.score)
app.command("generate")(generate.generate)
app.command("separate")(separate.separate)
app.command("check")(check.check)
app.command("explain")(explain.explain)
app.command("run")(run_verb.run)
app.command("plan")(plan.plan)
app.command("plot")(plot.plot)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("evaluate")(evaluate.evaluate)
app.command("submit")(submit.submit)
app.add_typer(data.app, name="data")
app.add_typer(ensemble.app, name="ensemble")
app.add_typer(model.app, name="model")
app.add_typer(monitor.app, name="monitor")
app.add_typer(recipe.app, name="recipe")
app.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"harken {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Exit codes: 0 success, 1 alarm or change (with --fail-on-anomaly), 2 error."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM: workers end and files are closed as after Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    global _stopped_with
    _stopped_with = TERMINATED
    raise _Terminated


_stopped_with = INTERRUPTED


def run() -> None:
    """Entry point of the `harken` command."""
    global _stopped_with
    _stopped_with = INTERRUPTED
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    keep_freed_memory()
    console.open_streams()
    code = _outcome()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = CLOSED_PIPE
    except (OSError, ValueError):
        code = 2
    if console.messages_lost and code == 0:
        code = 2
    if code:
        # What is left in buffers cannot be written, and Python would try again at its end.
        console.drop_output()
    sys.exit(code)


@cache
def _command(word: str) -> Callable[..., Any]:
    """The command line with the verb `word` alone, or with all if it is none: all take a tenth of a second to build."""
    commands = [command for command in app.registered_commands if command.name == word]
    groups = [group for group in app.registered_groups if group.name == word]
    if not commands and not groups:
        return get_command(app)
    alone = typer.Typer(**_SETTINGS)
    alone.registered_callback = app.registered_callback
    alone.registered_commands, alone.registered_groups = commands, groups
    return get_command(alone)


def _outcome() -> int:
    """The exit code of the command; its error is said."""
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        command = _command(next(iter(arguments), ""))
        if not all(arguments) or any(word.endswith("=") for word in arguments):
            check_words(command, arguments)
        code = command(args=arguments, standalone_mode=False)
        if code == INTERRUPTED:  # typer has turned a KeyboardInterrupt into this
            raise KeyboardInterrupt
    except typer.Exit as stop:
        code = stop.exit_code
    except TyperException as error:
        with suppress(OSError, ValueError):  # a stderr that cannot be written
            error.show()  # type: ignore[attr-defined]
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        console.say("harken: stopped; nothing that was already written is lost")
        code = _stopped_with
    except HarkenError as error:
        if debug:
            raise
        console.say(f"harken: {error}")
        code = 2
    except (BrokenPipeError, SystemExit):
        # The reader of our output has gone (| head), for which typer would exit with 1: an anomaly. Nothing is left
        # to say; the code is the shell's for a closed pipe.
        code = CLOSED_PIPE
    except OSError as error:
        if debug:
            raise
        where = "" if error.filename is None else f"{shown(os.fsdecode(error.filename))}: "
        if error.filename is None and {"--help", "-h", "--version"} & set(arguments):
            where = "standard output: "
        reason = error.strerror or str(error) or type(error).__name__
        console.say(
            f"harken: {where}cannot be read or written ({reason}). Check the disk, its space and its permissions."
        )
        code = 2
    except MemoryError:
        if debug:
            raise
        console.say("harken: does not fit into memory. Close other programs, or use --workers 1.")
        code = 2
    except ModuleNotFoundError as error:
        if debug:
            raise
        console.say(f"harken: {missing((error.name or '?').partition('.')[0], 'this command')}")
        code = 2
    except Exception as error:
        if debug:
            raise
        console.say(f"harken: unexpected {type(error).__name__}: {error}. Run again with --debug.")
        code = 2
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    run()

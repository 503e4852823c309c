"""Output shared by all verbs: messages on stderr, progress bars only on a terminal, data on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any

from harken.core.json_text import json_text
from harken.core.names import shown


def say(text: str = "") -> None:
    """Print a message to stderr, on one line whatever names are in it.

    Where that cannot be written, the work goes on, and the exit code is 2."""
    global messages_lost
    try:
        print(shown(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        messages_lost = True


def line(text: str = "", *, end: str = "\n") -> None:
    """Print lines for people to stdout, without control characters. HarkenError where they cannot be written."""
    with _written():
        print("\n".join(map(shown, text.split("\n"))), end=end, flush=True)


def emit(data: Any) -> None:
    """Print one JSON line to stdout. HarkenError where it cannot be written."""
    with _written():
        print(json_text(data), flush=True)


@contextmanager
def _written() -> Iterator[None]:
    from harken.core.errors import HarkenError

    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HarkenError(
            f"cannot be written ({error.strerror})", file="standard output", next_step="Check where it goes"
        ) from error


#: whether a message could not be written
messages_lost = False


def open_streams() -> None:
    """Make stdout and stderr fit for any name, and safe from libraries.

    Characters that the encoding lacks are escaped. What C libraries print goes to stderr; stdout has data only. Closed
    descriptors are opened, so that no file takes their number: nothing can be written to a closed stdout.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)
    if sys.stderr is None:
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, TextIOWrapper) and _descriptor(sys.stdout) == 1:
        old = sys.stdout
        sys.stdout = open(os.dup(1), "w", encoding=old.encoding, errors=old.errors)  # noqa: SIM115
        os.dup2(2, 1)


def _descriptor(stream: TextIOWrapper) -> int | None:
    """Its file descriptor; None for a stream in memory."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def drop_output() -> None:
    """Whatever is still to be printed, by Python at its end, goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Progress bar, updated with (done, total); silent unless stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def user_name() -> str:
    """Login name of who runs the command."""
    # Imported on use: few commands ask for it.
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "somebody"


def key_values(pairs: list[str]) -> dict[str, Any]:
    """Parse `name=value` arguments into a mapping; values are YAML, as in recipes. HarkenError if one is malformed."""
    from harken.core.errors import HarkenError
    from harken.core.plain_yaml import read_yaml

    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise HarkenError(f"{pair!r} is not of the form name=value", next_step="Write it as name=value")
        try:
            values[name] = read_yaml(value)
        except ValueError as error:
            raise HarkenError(
                f"the value of {pair!r} is not valid YAML ({error})",
                next_step=f"Write it as in a recipe; quote text that has special characters: {name}='\"...\"'",
            ) from None
    return values


def key_lists(pairs: list[str]) -> dict[str, list[Any]]:
    """Parse `name=value,value` arguments into a mapping; values are YAML. HarkenError for a name that occurs twice."""
    from harken.core.errors import HarkenError

    lists: dict[str, list[Any]] = {}
    for pair in pairs:
        name, equals, values = pair.partition("=")
        # As a list of YAML, where commas within brackets and quotes separate nothing.
        parsed = key_values([f"{name}=[{values}]" if equals else pair])
        if name in lists:
            raise HarkenError(f"{name} is swept twice", next_step=f"Write all values once: {name}=1,2,3")
        lists |= parsed
    return lists

"""Output shared by all verbs: messages on stderr, progress bars only on a terminal, data on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def say(text: str = "") -> None:
    """Print one message line to stderr."""
    print(text, file=sys.stderr, flush=True)


def emit(data: Any) -> None:
    """Print one JSON line to stdout."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


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

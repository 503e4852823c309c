"""Settings that people write in YAML, checked to the last key: errors name the line and the nearest name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from harken.core.errors import HarkenError, did_you_mean
from harken.core.json_text import json_text
from harken.core.numbers import read_number
from harken.core.plain_yaml import line_of

CORRECT_FILE = "Correct the file"


class SettingError(HarkenError):
    """Something in settings, at the dotted `key`, that is not as it must be."""

    def __init__(
        self, cause: str, *, key: str = "", file: str | None = None, next_step: str | None = CORRECT_FILE
    ) -> None:
        super().__init__(cause, file=file, next_step=next_step)
        self.key = key


@contextmanager
def located(
    file: str,
    lines: Mapping[str, int],
    *,
    profile: str = "",
    elsewhere: Callable[[SettingError], str | None] = lambda error: None,
) -> Iterator[None]:
    """Within it, a SettingError becomes a HarkenError on this file with its line.

    lines: by dotted key. profile: values under `profiles.NAME` are preferred. elsewhere: where an error is from, if not
    from the file.
    """
    try:
        yield
    except SettingError as error:
        place, step = elsewhere(error), error.next_step
        if place is None:
            prefix = f"profiles.{profile}."
            of_profile = [key for key in lines if key.startswith(prefix) and _covers(key[len(prefix) :], error.key)]
            line = line_of(lines, of_profile[0] if of_profile else error.key)
            place = file if line is None else f"{file}, line {line}"
        elif step == CORRECT_FILE:
            step = "Correct it"
        raise HarkenError(error.cause, file=place, next_step=step) from error.__cause__


def _covers(pattern: str, key: str) -> bool:
    """Whether a key, or one around it, is that of a pattern."""
    wanted, given = pattern.split("."), key.split(".")
    return len(given) >= len(wanted) and all(a in ("*", b) for a, b in zip(wanted, given, strict=False))


def known_keys(given: Mapping[str, Any], fields: Mapping[str, Any], prefix: str) -> None:
    """SettingError, naming the nearest, for a key that is not among the fields."""
    for name in given:
        if name not in fields:
            raise SettingError(
                f"unknown key {prefix}{name}", key=f"{prefix}{name}", next_step=nearest(str(name), fields)
            )


def check_kinds(given: Any, checked: Any, key: str = "") -> None:
    """SettingError where pydantic took `yes` or `no` for 1 or 0, or a text such as `1_000` for a number."""
    if isinstance(checked, int | float) and not isinstance(checked, bool):
        if isinstance(given, bool):
            raise SettingError(f"{key}: {'yes' if given else 'no'} is no number", key=key, next_step="Write a number")
        if isinstance(given, str):
            try:
                read_number(given)
            except ValueError as error:
                raise SettingError(f"{key}: {error}", key=key, next_step="Write a number") from None
    elif isinstance(given, Mapping) and isinstance(checked, Mapping):
        for name in given.keys() & checked.keys():
            check_kinds(given[name], checked[name], f"{key}.{name}".lstrip("."))
    elif isinstance(given, list | tuple) and isinstance(checked, list | tuple):
        for row, (given_item, checked_item) in enumerate(zip(given, checked, strict=False)):
            check_kinds(given_item, checked_item, f"{key}.{row}")


def explained(error: ValidationError, prefix: str = "", *, subject: str = "settings") -> SettingError:
    """The first error of pydantic, at its key below `prefix`. subject: what an error of no single key is about."""
    first = error.errors()[0]
    key = (prefix + ".".join(map(str, first["loc"]))).rstrip(".")
    # What concerns several values says which.
    cause = " ".join(first["msg"].removeprefix("Value error, ").split())
    is_said = isinstance(first["input"], str) and repr(first["input"]) in cause
    given = f" (given {json_text(first['input'], default=str)[:60]})" if first["loc"] and not is_said else ""
    return SettingError(f"{key or subject}: {cause}{given}", key=key, next_step="Correct it")


def nearest(word: str, names: Iterable[str]) -> str:
    """Next step for an unknown word."""
    return did_you_mean(word, sorted(map(str, names)))

"""Errors of recipes, with the line of what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from harken.core.errors import HarkenError
from harken.core.plain_yaml import line_of


class RecipeError(HarkenError):
    """Something in a recipe, at the dotted `key`, that is not as it must be."""

    def __init__(
        self, cause: str, *, key: str = "", file: str | None = None, next_step: str | None = "Correct the recipe"
    ) -> None:
        super().__init__(cause, file=file, next_step=next_step)
        self.key = key


@contextmanager
def located(file: str, lines: Mapping[str, int], profile: str, changed: Collection[str]) -> Iterator[None]:
    """Within it, a RecipeError becomes one of this file with its line; without one where `--set` gave the value.

    lines: by dotted key. changed: keys, with `*` for any name, that come from elsewhere than the file.
    """
    try:
        yield
    except RecipeError as error:
        line = None
        if not any(_covers(key, error.key) for key in changed):
            prefix = f"profiles.{profile}."
            of_profile = [key for key in lines if key.startswith(prefix) and _covers(key[len(prefix) :], error.key)]
            line = line_of(lines, of_profile[0] if of_profile else error.key)
        place = file if line is None else f"{file}, line {line}"
        raise HarkenError(error.cause, file=place, next_step=error.next_step) from error.__cause__


def _covers(pattern: str, key: str) -> bool:
    """Whether a key, or one around it, is that of a pattern."""
    wanted, given = pattern.split("."), key.split(".")
    return len(given) >= len(wanted) and all(a in ("*", b) for a, b in zip(wanted, given, strict=False))

"""Checks of what a kind of thing promises: functions whose docstring is the promise, and who say how it is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def check_all(name: str, checks: Iterable[Callable[[T], None]], thing: T) -> None:
    """AssertionError with the first promise that `thing`, called `name`, breaks, whatever was raised."""
    for check in checks:
        try:
            check(thing)
        except Exception as error:
            said = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{name} breaks a promise: {check.__doc__} {said}".rstrip()) from error


def require(kept: bool, otherwise: str) -> None:
    """AssertionError that says `otherwise`, unless `kept`; also where Python leaves assert statements out."""
    if not kept:
        raise AssertionError(otherwise)


def require_refusal(act: Callable[[], object], otherwise: str, *words: str) -> None:
    """AssertionError that says `otherwise` unless `act` raises a ValueError, with one of `words` in it, if any."""
    try:
        act()
    except ValueError as error:
        require(not words or any(word in str(error) for word in words), f"It says only: {error}.")
        return
    raise AssertionError(otherwise)

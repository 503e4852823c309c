"""Conformance checks: functions whose docstring states a property, and whose AssertionError says how it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def check_all(name: str, checks: Iterable[Callable[[T], None]], candidate: T) -> None:
    """Run checks on `candidate`; AssertionError with its `name` for the first that fails, whatever it raised."""
    for check in checks:
        try:
            check(candidate)
        except Exception as error:
            reason = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{name} fails a check: {check.__doc__} {reason}".rstrip()) from error


def require(condition: bool, message: str) -> None:
    """Raise AssertionError(message) unless `condition`; unlike assert statements, also under `python -O`."""
    if not condition:
        raise AssertionError(message)


def require_refusal(call: Callable[[], object], message: str, *words: str) -> None:
    """Raise AssertionError(message) unless `call` raises a ValueError that contains one of `words`, if any."""
    try:
        call()
    except ValueError as error:
        require(not words or any(word in str(error) for word in words), f"The error says only: {error}.")
        return
    raise AssertionError(message)

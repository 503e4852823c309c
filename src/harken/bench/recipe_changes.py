"""Changes of a recipe from the command line, and which of them an error comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from harken.core.errors import HarkenError
from harken.core.settings import SettingError


def changed_by(
    error: SettingError, changes: Mapping[str, Any], swept: Collection[str], check: Callable[[dict[str, Any]], object]
) -> str | None:
    """The option `--set KEY=VALUE`, or `--sweep` of a swept key, without which a recipe has not this error.

    check: of the recipe with other changes; it raises the error that it then has. None where no single change is the
    reason: the error is one of the file.
    """
    # The change at or below the error's key first, then those of what is read there.
    for key in sorted(changes, key=lambda key: not f"{error.key}.".startswith(f"{key}.")):
        try:
            check({name: value for name, value in changes.items() if name != key})
        except HarkenError as other:
            if other.cause == error.cause:
                continue
        option = "--sweep" if key in swept else "--set"
        return f"{option} {key}={value_text(changes[key])}"
    return None


def value_text(value: Any) -> str:
    """A value on one line, as it may be written on the command line: texts as they are, all others as JSON."""
    if not isinstance(value, str):
        value = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    return " ".join(value.split())

"""Values of a configuration that come from the environment or a file: `${NAME}`, `${file:PATH}`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from harken.core.errors import did_you_mean
from harken.core.settings import SettingError

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: secrets are short
_MOST_BYTES = 65_536


def filled_in(value: Any, folder: Path, key: str = "") -> Any:
    """Texts with their references replaced, at any depth. `$${` stands for `${`.

    folder: where relative paths of files begin. key: of the value. The line breaks at the end of a file are left out.
    Raises SettingError for a variable that is not set and a file that cannot be read; none shows a value.
    """
    if isinstance(value, dict):
        return {name: filled_in(inside, folder, f"{key}.{name}".lstrip(".")) for name, inside in value.items()}
    if isinstance(value, list):
        return [filled_in(inside, folder, f"{key}.{row}") for row, inside in enumerate(value)]
    if isinstance(value, str) and "${" in value:
        pieces = value.split("$${")
        return "${".join(_REFERENCE.sub(lambda match: _value(match[1], folder, key), piece) for piece in pieces)
    return value


def refers(value: Any) -> bool:
    """Whether a value as it is written comes from elsewhere, so that it must not be shown."""
    return isinstance(value, str) and _REFERENCE.search(value) is not None


def _value(name: str, folder: Path, key: str) -> str:
    if name.startswith("file:"):
        path = folder / name.removeprefix("file:")
        try:
            with path.open("rb") as handle:
                return handle.read(_MOST_BYTES).decode().rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise SettingError(
                f"{key}: {path} cannot be read ({reason})", key=key, next_step="Check its path and permissions"
            ) from None
    if not _VARIABLE.fullmatch(name):
        raise SettingError(
            f"{key}: ${{{name}}} names no variable of the environment", key=key,
            next_step="Write ${NAME}, ${file:PATH}, or $${ for the signs themselves",
        )  # fmt: skip
    if name not in os.environ:
        step = did_you_mean(name, [*os.environ], "Set it, or write ${file:PATH}")
        raise SettingError(f"{key}: the environment has no variable {name}", key=key, next_step=step)
    return os.environ[name]

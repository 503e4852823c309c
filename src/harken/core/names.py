"""Names of files as they are shown: on one line, whatever they hold."""

from __future__ import annotations

from pathlib import Path


def shown(name: str | Path) -> str:
    """The name with line breaks and other characters that cannot be printed as escapes, such as `\\n`."""
    return "".join(char if char.isprintable() else _escape(char) for char in str(name))


def _escape(char: str) -> str:
    # Surrogates stand for bytes that are not UTF-8, which terminals are given as they are.
    return char if "\ud800" <= char <= "\udfff" else char.encode("unicode_escape").decode()

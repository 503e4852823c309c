"""Numbers read from text: one notation everywhere, that of CSV and JSON."""

from __future__ import annotations

import re

# `float` and `int` of Python also take `1_000` and digits of other scripts.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


def read_number(text: str) -> float:
    """`0.5`, `-3`, `1e-4`, `nan`, `inf`, blanks around them left out. Raises ValueError for anything else."""
    word = text.strip(" \t\r\n")
    if not _NUMBER.fullmatch(word):
        raise ValueError(f"{text!r} is not a number")
    return float(word)


def read_whole(text: str) -> int:
    """A whole number such as `12`, blanks around it left out. Raises ValueError for anything else."""
    word = text.strip(" \t\r\n")
    if not _WHOLE.fullmatch(word) or len(word) > 1000:
        raise ValueError(f"{text!r} is not a whole number")
    return int(word)

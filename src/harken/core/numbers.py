"""Numbers read from text: one notation everywhere, that of CSV and JSON."""

from __future__ import annotations

import re

# `float` of Python also takes `1_000` and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


def read_number(text: str) -> float:
    """`0.5`, `-3`, `1e-4`, `nan`, `inf`, blanks around them left out. Raises ValueError for anything else."""
    word = text.strip(" \t\r\n")
    if not _NUMBER.fullmatch(word):
        raise ValueError(f"{text!r} is not a number")
    return float(word)

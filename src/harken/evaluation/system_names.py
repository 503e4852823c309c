"""Names of systems that were read from several paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def distinct_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Each name; those that several systems have, with as many folders in front as tell them apart.

    paths: what each was read from: the folder of its score files, of which it has the name, or a folder of folders, a
    zip or a table, whose name comes first (of files, where they differ in it). Systems of one name and path keep it.
    """
    distinct = list(names)
    files = {path.name for path in paths if path.is_file()}
    above = [_above(path.absolute(), several_files=len(files) > 1) for path in paths]
    same = Counter(zip(names, above, strict=True))
    used = [0] * len(distinct)
    while True:
        counts = Counter(distinct)
        rows = [
            row
            for row, name in enumerate(distinct)
            if counts[name] > 1 and used[row] < len(above[row]) and same[names[row], above[row]] == 1
        ]
        if not rows:
            return distinct
        for row in rows:
            distinct[row] = f"{above[row][used[row]]}/{distinct[row]}"
            used[row] += 1


def _above(path: Path, *, several_files: bool) -> tuple[str, ...]:
    """Names of what holds a system of `path`, the nearest first, without the root."""
    names = path.parts[1:][::-1]
    own_name = any(path.glob("anomaly_score_*.csv")) if path.is_dir() else path.is_file() and not several_files
    return names[1:] if own_name else names

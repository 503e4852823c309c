"""Tables of several systems: one row per clip, one column per system, with or without the labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harken.core.errors import HarkenError, reading
from harken.core.names import joined
from harken.core.numbers import read_number
from harken.core.tables import read_csv, read_parquet
from harken.data.cells import SEPARATORS, read_anomaly, read_clip, read_domain
from harken.data.truth import Label, Section, Truth
from harken.evaluation.scores import ScoreRow, Scores

#: columns that are not of systems
NEEDED, LABELS = ("machine", "section", "file"), ("domain", "anomaly")
_Value = TypeVar("_Value")


def read_score_table(file: Path) -> tuple[list[Scores], Truth | None]:
    """Systems of a table with the columns `machine`, `section`, `file`, optionally `domain` and `anomaly` (then the
    table contains its truth), and one column per system; `.csv`, `.csv.gz` or `.parquet`.

    Names of these columns are read in any case. Raises HarkenError, with line and cell, for anything else: columns
    without a name or of one name, rows of other lengths, labels and domains that are none (see `data.cells`), scores
    that are no finite numbers, repeated clips.
    """
    table = _read(file)
    if missing := [name for name in NEEDED if name not in table.head]:
        cause = "is not a table of scores: it needs the columns machine, section, file and one per system, and has no "
        separated = any(sign in name for name in table.head for sign in ";\t|")
        raise HarkenError(
            cause + missing[0], file=file,
            next_step=SEPARATORS if separated else "Give a folder of anomaly_score_*.csv, or such a table",
        )  # fmt: skip
    names = sorted(set(table.head) - {*NEEDED, *LABELS})
    if not names:
        raise HarkenError("has no column with scores", file=file, next_step="Add one column per system")
    machines, numbers = map(joined, table.column("machine", _text)), table.column("section", _section)
    sections: list[Section] = list(zip(machines, numbers, strict=True))
    clips = table.column("file", read_clip)
    lines: dict[tuple[Section, str], int] = {}
    for section, clip, line in zip(sections, clips, table.lines, strict=True):
        earlier = lines.setdefault((section, clip), line)
        if earlier != line:
            raise HarkenError(
                f"line {line}: {section[0]}: {clip} occurs twice, first on line {earlier}", file=file,
                next_step="Keep one row per clip",
            )  # fmt: skip
    truth = None
    if "anomaly" in table.head:
        truth = Truth(str(file))
        domains = table.column("domain", read_domain) if "domain" in table.head else ["unknown"] * len(clips)
        for section, clip, anomaly, domain in zip(
            sections, clips, table.column("anomaly", read_anomaly), domains, strict=True
        ):
            truth.add(section, clip, Label(anomaly, domain))
    return [_system(table, name, sections, clips) for name in names], truth


def _system(table: _Table, name: str, sections: list[Section], clips: list[str]) -> Scores:
    rows = [
        ScoreRow(f"{machine}/section_{section}/test/{clip}", f"{clip}.wav", machine, section, "test", score)
        for (machine, section), clip, score in zip(sections, clips, table.column(name, _score), strict=True)
    ]
    # Sorted by section as files of a folder are; within a section, the order of the table.
    first = {key: number for number, key in reversed(list(enumerate(sections)))}
    return Scores.of_rows(sorted(rows, key=lambda row: first[row.machine, row.section]), name)


@dataclass(frozen=True)
class _Table:
    """A table as text: names of columns, rows of as many cells, the line of each row."""

    file: Path
    head: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str, read: Callable[[str], _Value]) -> list[_Value]:
        """A column as `read` reads its cells. Raises HarkenError with line and cell for what it refuses."""
        place = self.head.index(name)
        values = []
        for line, cells in zip(self.lines, self.rows, strict=True):
            try:
                values.append(read(cells[place]))
            except ValueError as error:
                next_step = SEPARATORS if name == "file" else "Correct the cell"
                raise HarkenError(f"line {line}, column {name}: {error}", file=self.file, next_step=next_step) from None
        return values


def _read(file: Path) -> _Table:
    next_step = "Name a folder of anomaly_score_*.csv, or a table"
    if file.suffix == ".parquet":
        import pyarrow as pa

        with reading(file, "Write it again", errors=(ValueError, OverflowError, pa.ArrowException)):
            table = read_parquet(file)
            columns = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in table.columns]
        rows = [list(cells) for cells in zip(*columns, strict=True)]
        # As the lines of the same table as CSV, whose first is the header.
        return _Table(file, _head(file, table.column_names), rows, list(range(2, len(rows) + 2)))
    lines = read_csv(file, next_step)
    if not lines:
        raise HarkenError("is empty", file=file, next_step=next_step)
    head = _head(file, lines[0].cells)
    for line, cells in lines[1:]:
        if len(cells) != len(head):
            raise HarkenError(
                f"line {line} ({','.join(cells)[:80]!r}) has {len(cells)} cells, the header {len(head)}", file=file,
                next_step=SEPARATORS,
            )  # fmt: skip
    return _Table(file, head, [cells for _, cells in lines[1:]], [line for line, _ in lines[1:]])


def _head(file: Path, cells: list[str]) -> list[str]:
    """Names of the columns; those that are not of systems in lower case."""
    names: list[str] = []
    for number, cell in enumerate(cells, start=1):
        name = cell.strip()
        name = name.lower() if name.lower() in (*NEEDED, *LABELS) else name
        if not name:
            raise HarkenError(
                f"column {number} has no name", file=file, next_step="Name the system, or write it without this column"
            )
        if name in names:
            raise HarkenError(
                f"column {number} has the name {name!r}, as column {names.index(name) + 1} has", file=file,
                next_step="Give each column another name",
            )  # fmt: skip
        names.append(name)
    return names


def _text(cell: str) -> str:
    if not cell.strip():
        raise ValueError("it is empty")
    return cell.strip()


def _section(cell: str) -> str:
    return _text(cell).removeprefix("section_").removeprefix("id_")


def _score(cell: str) -> float:
    value = read_number(cell)
    if not math.isfinite(value):
        raise ValueError(f"{cell!r} is not a finite number")
    return value

"""Reader of `attributes_NN.csv`, the operating conditions of a machine's clips, in all published variants."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from harken.core.errors import HarkenError
from harken.data.names import without_suffix


class ListedClip(NamedTuple):
    """A row: name without folder and suffix, attributes, and whether it has more cells than the table has columns."""

    name: str
    attributes: dict[str, str]
    overlong: bool


def read_attributes(file: Path) -> list[ListedClip]:
    """Rows of a table `file_name[,d1p,d1v,d2p,d2v...]`.

    Names are given with folder and suffix (`fan/train/section_00_....wav`) or without; machines with hidden attributes
    have the first column only. Other columns (`file_name_with_attributes`) are ignored.
    Raises HarkenError when the file cannot be read as such a table.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            table = csv.reader(handle)
            head = [cell.strip() for cell in next(table, [])]
            if not head or head[0] != "file_name":
                raise HarkenError(
                    "is not an attribute table: its first column is not file_name",
                    file=file,
                    next_step="Download it again or remove it",
                )
            pairs = [(head.index(f"d{n}p"), head.index(f"d{n}v")) for n in range(1, len(head)) if f"d{n}v" in head]
            rows = []
            for row in table:
                if row and row[0].strip():
                    name = without_suffix(PurePosixPath(row[0].strip().replace("\\", "/")).name)
                    attributes = {row[p].strip(): row[v].strip() for p, v in pairs if v < len(row) and row[p].strip()}
                    # Empty cells at the end are those of a spreadsheet.
                    rows.append(ListedClip(name, attributes, any(cell.strip() for cell in row[len(head) :])))
            return rows
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise HarkenError(f"cannot be read ({error})", file=file, next_step="Download it again or remove it") from error

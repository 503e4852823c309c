"""Reader of `attributes_NN.csv`, the operating conditions of a machine's clips, in all published variants."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from harken.core.errors import HarkenError
from harken.core.tables import read_csv
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
    step = "Download it again or remove it"
    lines = read_csv(file, step)
    head = [cell.strip() for cell in lines[0].cells] if lines else []
    if not head or head[0] != "file_name":
        raise HarkenError("is not an attribute table: its first column is not file_name", file=file, next_step=step)
    pairs = [
        (head.index(f"d{n}p"), head.index(f"d{n}v"))
        for n in range(1, len(head))
        if f"d{n}p" in head and f"d{n}v" in head
    ]
    rows = []
    for _, row in lines[1:]:
        if row[0].strip():
            name = without_suffix(PurePosixPath(row[0].strip().replace("\\", "/")).name)
            attributes = {row[p].strip(): row[v].strip() for p, v in pairs if v < len(row) and row[p].strip()}
            # Empty cells at the end are those of a spreadsheet.
            rows.append(ListedClip(name, attributes, any(cell.strip() for cell in row[len(head) :])))
    return rows

"""Reader of `attributes_NN.csv`, the operating conditions of a machine's clips, in all published variants."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from harken.core.errors import HarkenError
from harken.core.names import shown
from harken.core.tables import read_csv
from harken.data.names import without_suffix


class ListedClip(NamedTuple):
    """A row: name without folder and suffix, attributes, and what is wrong with the row, of which the rest is read."""

    name: str
    attributes: dict[str, str]
    problem: str = ""


def read_attributes(file: Path) -> list[ListedClip]:
    """Rows of a table `file_name[,d1p,d1v,d2p,d2v...]`.

    Names are given with folder and suffix (`fan/train/section_00_....wav`) or without; machines with hidden attributes
    have the first column only. Other columns (`file_name_with_attributes`) are ignored, and so are further values of an
    attribute. Raises HarkenError when the file cannot be read as such a table, or has two columns of one name.
    """
    step = "Download it again or remove it"
    lines = read_csv(file, step)
    head = [cell.strip() for cell in lines[0].cells] if lines else []
    if not head or head[0] != "file_name":
        raise HarkenError("is not an attribute table: its first column is not file_name", file=file, next_step=step)
    if twice := [name for name, count in Counter(filter(None, head)).items() if count > 1]:
        raise HarkenError(f"has two columns {shown(twice[0])}", file=file, next_step=step)
    pairs = [
        (head.index(f"d{n}p"), head.index(f"d{n}v"))
        for n in range(1, len(head))
        if f"d{n}p" in head and f"d{n}v" in head
    ]
    rows = []
    for _, row in lines[1:]:
        if row[0].strip():
            name = without_suffix(PurePosixPath(row[0].strip().replace("\\", "/")).name)
            attributes: dict[str, str] = {}
            # Empty cells at the end are those of a spreadsheet.
            problem = "has a row with more cells than columns" if any(map(str.strip, row[len(head) :])) else ""
            for key_column, value_column in pairs:
                if value_column < len(row) and (key := row[key_column].strip()):
                    value = row[value_column].strip()
                    if attributes.setdefault(key, value) != value:
                        problem = f"gives {shown(key)} two values, {shown(attributes[key])} and {shown(value)}"
            rows.append(ListedClip(name, attributes, problem))
    return rows

"""Year, machine and split of a recording from its folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

Split = Literal["train", "test", "supplemental"]

#: folder of clips -> split, and domain where the folder name gives it
_FOLDERS: dict[str, tuple[Split, str]] = {
    "train": ("train", "unknown"),
    "test": ("test", "unknown"),
    # The baseline's copies of the evaluation clips under labelled names.
    "test_rename": ("test", "unknown"),
    "source_test": ("test", "source"),
    "target_test": ("test", "target"),
    "supplemental": ("supplemental", "unknown"),
}
_YEAR = re.compile(r"(?:^|dcase[-_ ]?)(20\d\d)(?:$|[^0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class FolderInfo:
    """Fields given by the folder of a clip; "", None or `unknown` where it does not give them."""

    machine: str = ""
    split: Split | None = None
    domain: str = "unknown"
    year: int | None = None


def parse_folder(folder: PurePath) -> FolderInfo:
    """Parse a folder of clips: `<machine>/train`, as published or below `dcase2025t2/dev_data/raw`.

    The year is that of the nearest parent folder named `2025` or `dcase2025...`.
    """
    year = next((int(match[1]) for name in reversed(folder.parts) if (match := _YEAR.search(name))), None)
    if folder.name in _FOLDERS:
        split, domain = _FOLDERS[folder.name]
        return FolderInfo(machine=folder.parent.name, split=split, domain=domain, year=year)
    return FolderInfo(machine=folder.name, year=year)

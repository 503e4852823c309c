"""Year, machine and split of a recording from its folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
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


@dataclass(frozen=True)
class Layout:
    """Which folders of a tree are those of a machine's clips.

    root: of the tree. machines_below: the folders `train` and `test` hold one folder per machine, and no clips.
    """

    root: Path
    machines_below: bool

    @classmethod
    def of(cls, root: Path, folders: Sequence[Path]) -> Layout:
        """Layout of a tree from all its folders that hold clips."""
        splits = {folder: split for folder in folders if (split := _split_folder(root, folder)) is not None}
        machines = Counter(folder.relative_to(split).parts[0] for folder, split in splits.items() if folder != split)
        machines_below = (
            len({split.parent for split in splits.values()}) == 1
            and all(folder != split for folder, split in splits.items())
            and min(machines.values()) > 1
        )
        return cls(root, machines_below)

    def clips_folder(self, folder: Path) -> Path:
        """The folder itself, or the one of a machine's clips that it is below: `fan/test` of `fan/test/shift 1`."""
        split = None if self.machines_below else _split_folder(self.root, folder)
        return folder if split is None else split


def _split_folder(root: Path, folder: Path) -> Path | None:
    """The folder itself, or the nearest above it and below `root`, that is named like one of clips."""
    above = [path for path in folder.parents if root in path.parents]
    return next((path for path in (folder, *above) if path.name in _FOLDERS), None)

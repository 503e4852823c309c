"""Files of a folder that were recorded as normal: a monitor of the folder begins behind them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from harken.audio.suffixes import DEFAULT_SUFFIXES
from harken.data.folders import walk
from harken.service.records import Resume
from harken.service.set_up.enough import files_of
from harken.service.set_up.recorder import copied
from harken.service.sources.folder_files import FolderFile


def learned_files(folder: Path, machine: str, recordings: Path) -> Resume:
    """What a store keeps so that files in `folder` with a copy in `recordings` are not judged (`records.Resume`)."""
    originals = copied(file.name for file in files_of(recordings))
    resume: dict[str, dict[str, Any]] = {}
    for path in (place.path / name for place in walk(folder, DEFAULT_SUFFIXES).folders for name in place.audio):
        origin = path.relative_to(folder).as_posix()
        if origin.replace("/", "_") in originals:
            with suppress(OSError):  # it has gone meanwhile
                status = path.stat()
                file = FolderFile(path, origin, status.st_size, status.st_mtime_ns)
                resume[f"{machine}/{origin}"] = {"state": file.state, "done": True}
    return resume

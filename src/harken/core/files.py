"""Files that are whole or not there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def temporary_beside(path: Path) -> Path:
    """A name that is free, hidden, on the same file system, and begins as `path`'s: to be renamed to it when whole."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def write_atomically(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write `data` so that `path` holds either what it held before or all of `data`.

    sync: also survive a power cut right after (costs a disk flush). The file gets the rights of any new file, by the
    user's umask.
    """
    temporary = temporary_beside(path)
    try:
        with open(temporary, "xb") as handle:
            handle.write(data)
            if sync:
                handle.flush()
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

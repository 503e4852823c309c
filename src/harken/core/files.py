"""Atomic file writes, and the folder of what is kept for the user."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import platformdirs


def user_cache() -> Path:
    """The user's cache folder, or the one that HARKEN_CACHE names; it need not exist yet."""
    return Path(os.environ.get("HARKEN_CACHE") or platformdirs.user_cache_dir("harken", appauthor=False))


def temporary_beside(path: Path) -> Path:
    """Unused hidden path in the same folder, to be renamed to `path` when complete."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def write_atomically(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write `data` atomically: `path` holds either its previous content or all of `data`.

    sync: flush to disk, so that the file survives a power failure. Permissions follow the umask.
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

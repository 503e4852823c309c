"""Locks between processes, for what several of them may change at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harken.core.errors import HarkenError


def lock_file(path: Path) -> Path:
    """The file that is locked for `path`: hidden, in the same folder."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(
    path: Path, *, patience: float = 600.0, busy: str = "is being written", waits: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Within it, no other process is in the same context for `path`, which need not exist.

    patience: seconds to wait for another process. waits: called if it has to. A process that is killed gives its lock
    up. Raises HarkenError when patience ends, which says how `busy` the path is; OSError where there can be no lock.
    """
    # Imported on use: most commands lock nothing.
    from filelock import FileLock, Timeout

    file = lock_file(Path(os.path.realpath(path)))
    # FileLock would wait where it cannot open its file; this raises.
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o666))
    lock = FileLock(file)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not patience:
                raise
            waits()
            lock.acquire(timeout=patience)
    except Timeout:
        raise HarkenError(
            f"{busy} by another process", file=path, next_step="Wait for its end, or stop it, and run again"
        ) from None
    try:
        yield
    finally:
        # While it is held: who waits notices that the file is gone, and makes another one. Windows refuses, and
        # removes the file on release.
        try:
            with suppress(OSError):
                file.unlink()
        finally:
            lock.release()

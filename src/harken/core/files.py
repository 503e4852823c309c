"""Files that are written atomically, files of strangers, and the folder of what is kept for the user."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import platformdirs

#: seconds for which Windows may refuse to replace a file that another program is reading
_PATIENCE = 2.0


def user_cache() -> Path:
    """The user's cache folder, or the one that HARKEN_CACHE names; it need not exist yet."""
    return Path(os.environ.get("HARKEN_CACHE") or platformdirs.user_cache_dir("harken", appauthor=False))


def temporary_beside(path: Path) -> Path:
    """Unused hidden path in the same folder, to be renamed to `path` when complete."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def remove_temporaries(path: Path) -> None:
    """Remove what killed processes left of `temporary_beside`; only while no other process writes `path`."""
    prefix = f".{path.name}."
    with suppress(OSError):
        for stray in path.parent.iterdir():
            if stray.name.startswith(prefix) and stray.name.endswith(".tmp"):
                if stray.is_dir() and not stray.is_symlink():
                    shutil.rmtree(stray, ignore_errors=True)
                else:
                    stray.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | Iterable[bytes | memoryview], *, sync: bool = False) -> None:
    """Write `data`, or its pieces, atomically: `path` holds either its previous content or all of it.

    sync: flush to disk, so that the file survives a power failure. Permissions follow the umask.
    Raises OSError with the name of `path`, whatever step failed.
    """
    temporary = temporary_beside(path)
    try:
        with open(temporary, "xb") as handle:
            handle.writelines([data] if isinstance(data, bytes) else data)
            if sync:
                handle.flush()
                _flush(handle.fileno())
        replace_file(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # which the caller knows, and a full disk does not name
        raise


def replace_file(source: Path, target: Path, *, system: str = sys.platform) -> None:
    """Rename a file over another. Windows refuses while somebody reads that one: it is tried again for two seconds."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if system != "win32" or time.monotonic() > end:
                raise
            time.sleep(0.01)


def flush_folder(folder: Path, *, system: str = sys.platform) -> None:
    """Make renames within a folder survive a power failure; nothing on Windows, where folders cannot be opened."""
    if system == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot flush folders.
        with suppress(OSError):
            _flush(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    """fsync, which on macOS leaves data in the disk's own buffer without F_FULLFSYNC."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises OSError, before anything is read, for a larger one, and for a link, pipe, device or folder, none of which is
    followed or waited for.
    """
    # Where links cannot be excluded on opening, they are by what the name stands for.
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    with os.fdopen(os.open(path, flags), "rb") as handle:
        status = os.fstat(handle.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, more than {most:,}", str(path))
        data = handle.read(status.st_size + 1)
    if len(data) != status.st_size:
        raise OSError(errno.EIO, "it changed while it was read", str(path))
    return data

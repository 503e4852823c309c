"""Which files of a folder their writers have finished."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harken.audio.header import read_file_header
from harken.core.errors import AudioError

#: a closed file is taken when it has been the same for so many seconds: some writers open it again to finish
CLOSED_S = 0.2
#: one that is open, or whose header is unfinished, is taken when it has been left alone for so long
LEFT_ALONE_S = 60.0
#: files that are older are not being written
_OLD_S = 3_600.0


@dataclass
class _Seen:
    """size, modified: of the file; since: when it was first seen so; first: when it was first asked for; monotonic."""

    size: int
    modified_ns: int
    since: float
    first: float | None


class Settling:
    """Watches files from look to look.

    settle_s: after so long without a change a file is finished whose writer cannot be asked for: of another computer,
    or where the system has no leases.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._seen: dict[Path, _Seen] = {}
        # Network file systems refuse leases of files that nobody writes: they count where one was ever given.
        self._leases = False

    def finished(self, path: Path, status: os.stat_result) -> bool:
        """Whether a file of this status is finished; to be asked at each look until it is."""
        now = time.monotonic()
        seen = self._seen.get(path)
        if seen is None or (seen.size, seen.modified_ns) != (status.st_size, status.st_mtime_ns):
            first = now if seen is None else seen.first or now
            seen = self._seen[path] = _Seen(status.st_size, status.st_mtime_ns, now, first)
            if time.time() - status.st_mtime < _OLD_S:
                return False
            del self._seen[path]
            return True
        seen.first = seen.first or now
        unchanged_s = now - seen.since
        closed = is_closed(path) if unchanged_s >= CLOSED_S else None
        if closed:
            self._leases = True
            needed_s = CLOSED_S
        elif closed is False and self._leases:
            needed_s = LEFT_ALONE_S
        else:
            needed_s = self._settle_s if unchanged_s < self._settle_s or _complete(path) else LEFT_ALONE_S
        if unchanged_s < needed_s:
            return False
        del self._seen[path]
        return True

    def note(self, path: Path, status: os.stat_result) -> None:
        """A file that has to wait for another one, so that it is finished when its turn comes."""
        seen = self._seen.get(path)
        if seen is None or (seen.size, seen.modified_ns) != (status.st_size, status.st_mtime_ns):
            first = None if seen is None else seen.first
            self._seen[path] = _Seen(status.st_size, status.st_mtime_ns, time.monotonic(), first)

    def blocks(self, path: Path) -> bool:
        """Whether files behind this one, which is not finished, are to wait for it."""
        return time.monotonic() - (self._seen[path].first or 0.0) < LEFT_ALONE_S

    @property
    def pending(self) -> bool:
        """Whether any file is not finished."""
        return bool(self._seen)

    def keep(self, paths: set[Path]) -> None:
        """Forget all others."""
        for path in self._seen.keys() - paths:
            del self._seen[path]


def is_closed(path: Path) -> bool | None:
    """Whether no process has the file open for writing; None where that is not known.

    Linux gives a lease for reading only on such a file (fcntl(2), F_SETLEASE), to its owner.
    """
    if sys.platform != "linux":
        return None
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        # A writer that comes while we hold it makes the system signal us: by one that is ignored unless handled.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _complete(path: Path) -> bool:
    """Whether a file holds what its header says; also for what is no sound at all, which is not awaited."""
    try:
        header = read_file_header(path)
    except AudioError:
        return True
    return not any(finding.kind in ("cut off", "unfinished header") for finding in header.findings)

"""Worker processes: how many, their start, and their end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import connection, parent_process

from harken.core.memory import keep_freed_memory
from harken.core.threads import one_thread_for_good


def begin_worker() -> None:
    """Initialise a worker process: one thread, freed memory kept; Ctrl-C is left to the parent, which stops it.

    It ends when its parent does, however that ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Forked from a program that turns it into an exception, a worker would outlive it in a decoder.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_parent()
    keep_freed_memory()
    one_thread_for_good()


def cores() -> int:
    """Cores that this process may use; those of the machine where the system does not say (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()

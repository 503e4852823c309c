"""Start of worker processes."""

from __future__ import annotations

import signal

from harken.core.memory import keep_freed_memory
from harken.core.threads import one_thread_for_good


def begin_worker() -> None:
    """Initialise a worker process: one thread, freed memory kept; Ctrl-C is left to the parent, which stops it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    one_thread_for_good()

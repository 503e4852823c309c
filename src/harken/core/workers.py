"""Start of worker processes."""

from __future__ import annotations

import signal

from harken.core.threads import one_thread_for_good


def begin_worker() -> None:
    """Initialise a worker process: one thread, and Ctrl-C is left to the parent process, which stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread_for_good()

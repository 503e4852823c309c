"""How worker processes begin."""

from __future__ import annotations

import signal

from harken.core.threads import one_thread_for_good


def begin_worker() -> None:
    """To be called first in a worker process: it computes on one thread and leaves Ctrl-C to the process that started
    it, which stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread_for_good()

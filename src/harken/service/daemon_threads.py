"""Threads that do what they are given, and keep nobody from ending."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class DaemonThreads:
    """Does work in the order in which it comes, in so many threads. What hangs in one of them hangs there alone: the
    process ends without it."""

    def __init__(self, name: str, threads: int = 1) -> None:
        self._name, self._most = name, threads
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done soon; not after `close`. What it raises is logged."""
        with self._lock:
            if self._closed:
                return
            self._work.put(work)
            if len(self._threads) < self._most:
                thread = threading.Thread(target=self._run, name=f"{self._name} {len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self, seconds: float) -> bool:
        """Begin no more of it, and wait for what is being done; whether that has ended in time."""
        with self._lock:
            self._closed = True
        end = time.monotonic() + seconds
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            if self._closed:
                continue
            try:
                work()
            except Exception:
                log.exception("%s: unexpected", self._name)

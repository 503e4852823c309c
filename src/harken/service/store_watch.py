"""What is said of the store: that it cannot be used, and that it can again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from harken.service.source_watch import LASTS_S, Teller

log = logging.getLogger(__name__)


class StoreWatch:
    """Logs each trouble with the store, and tells of those that last for `lasts_s`, and of their end."""

    def __init__(self, say: Teller, *, lasts_s: float = LASTS_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._lasts_s, self._clock = say, lasts_s, clock
        self._since: float | None = None
        self._announced = False

    def look(self, problem: str) -> None:
        """Call it now and then. problem: why the store cannot be used; empty where it can."""
        now = self._clock()
        if problem:
            if self._since is None:
                self._since = now
                log.error("store: %s", problem)
            if not self._announced and now - self._since >= self._lasts_s:
                self._announced = True
                sentence = f"{problem} Alarms go out all the same, and what is to be stored waits in memory."
                self._say("service", headline="store cannot be used", sentence=sentence, problem=True)
        elif self._since is not None:
            seconds = now - self._since
            self._since = None
            log.info("store: works again after %.0f s, and has what waited for it", seconds)
            if self._announced:
                self._announced = False
                self._say("service", headline="store works again",
                          sentence=f"The store works again after {seconds:.0f} s.", problem=False)  # fmt: skip

"""Wall-clock time of live sound."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

#: sound that is so many seconds later than its samples say was lost on its way, or its clock is slow
_MOST_LATE_S = 2.0


class LiveClock:
    """Tells when sound was heard, from the number of its samples.

    Times follow the samples, not the moments at which blocks arrive, and the steps of the wall clock, which are
    differences between it and the monotonic clock.

    live: sound comes in real time; where its own clock runs fast or slow, times follow the wall clock.
    """

    def __init__(
        self,
        *,
        live: bool,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._monotonic, self._live = wall, monotonic, live
        self._began: float | None = None

    def start(self, heard_s: float, seconds: float) -> datetime:
        """Time of the first sample of a block of `seconds` that has just arrived, `heard_s` after the first of all."""
        now = self._monotonic()
        if self._began is None:
            self._began = now - heard_s - seconds
        late_s = now - (self._began + heard_s + seconds)
        if late_s > _MOST_LATE_S or (self._live and late_s < -_MOST_LATE_S):
            self._began += late_s
        return datetime.fromtimestamp(self._wall() - now + self._began + heard_s, UTC)

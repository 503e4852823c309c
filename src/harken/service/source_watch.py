"""Messages about sources: troubles that last, and their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from harken.core.names import shown
from harken.service.feed import SourceStatus

#: networks and devices come back within seconds, which nobody need know
LASTS_S = 30.0


class Teller(Protocol):
    """Records a message."""

    def __call__(self, kind: str, **payload: Any) -> None: ...


class SourceWatch:
    """Tells of each source once when it has given no sound for `lasts_s`, and once when it does again."""

    def __init__(self, say: Teller, *, lasts_s: float = LASTS_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._lasts_s, self._clock = say, lasts_s, clock
        #: since when, and what, of sources that are in trouble
        self._troubles: dict[str, tuple[float, SourceStatus]] = {}
        self._announced: set[str] = set()

    def changed(self, name: str, status: SourceStatus) -> None:
        """A source has another state."""
        if status.good or status.state in ("ended", "stopped"):
            if status.state == "running" or status.state == "ended":
                self._troubles.pop(name, None)
                if name in self._announced:
                    self._announced.discard(name)
                    self._tell(name, status, f"The source {name} ({shown(status.place)}) gives sound again.", False)
            return
        since = self._troubles[name][0] if name in self._troubles else self._clock()
        self._troubles[name] = since, status
        if status.state == "failed":
            self._announce(name, status)

    def tick(self) -> None:
        """Time goes by."""
        now = self._clock()
        for name, (since, status) in self._troubles.items():
            if name not in self._announced and now - since >= self._lasts_s:
                self._announce(name, status)

    def forget(self, name: str) -> None:
        """The source is no longer listened to."""
        self._troubles.pop(name, None)
        self._announced.discard(name)

    def _announce(self, name: str, status: SourceStatus) -> None:
        if name in self._announced:
            return
        self._announced.add(name)
        why = f" {status.error}" if status.error else ""
        end = "" if status.state == "failed" else " It is tried again and again."
        self._tell(name, status, f"The source {name} gives no sound.{why}{end}", True)

    def _tell(self, name: str, status: SourceStatus, sentence: str, problem: bool) -> None:
        self._say(
            "source", source=name, place=status.place, state=status.state, sentence=sentence, problem=problem,
            restarts=status.restarts,
        )  # fmt: skip

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
    """Tells of each source once when it has given no sound, or only moments of it, for `lasts_s`, and once when it has
    given sound again for as long."""

    def __init__(self, say: Teller, *, lasts_s: float = LASTS_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._lasts_s, self._clock = say, lasts_s, clock
        #: since when, and what, of sources that are in trouble; since when such a source gives sound
        self._troubles: dict[str, tuple[float, SourceStatus]] = {}
        self._sounds: dict[str, float] = {}
        self._announced: set[str] = set()

    def changed(self, name: str, status: SourceStatus) -> None:
        """A source has another state."""
        if status.state == "ended":
            self._over(name, status)
        elif status.state == "running" and name in self._troubles:
            self._troubles[name] = self._troubles[name][0], status
            self._sounds.setdefault(name, self._clock())
        elif not (status.good or status.state == "stopped"):
            self._sounds.pop(name, None)
            # A source that ends in order and is begun again gives sound but for that gap.
            goes_on = name in self._troubles and (status.failures > 0 or self._troubles[name][1].state != "running")
            since = self._troubles[name][0] if goes_on else self._clock()
            self._troubles[name] = since, status
            if status.state == "failed" or self._clock() - since >= self._lasts_s:
                self._announce(name, status)

    def tick(self) -> None:
        """Time goes by."""
        now = self._clock()
        for name, (since, status) in [*self._troubles.items()]:
            if name in self._sounds:
                if now - self._sounds[name] >= self._lasts_s:
                    self._over(name, status)
            elif name not in self._announced and now - since >= self._lasts_s:
                self._announce(name, status)

    def forget(self, name: str) -> None:
        """The source is no longer listened to."""
        self._troubles.pop(name, None)
        self._sounds.pop(name, None)
        self._announced.discard(name)

    def _over(self, name: str, status: SourceStatus) -> None:
        """The trouble of a source is over."""
        announced = name in self._announced
        self.forget(name)
        if announced:
            self._tell(name, status, f"The source {name} ({shown(status.place)}) gives sound again.", False)

    def _announce(self, name: str, status: SourceStatus) -> None:
        if name in self._announced:
            return
        self._announced.add(name)
        why = f" {status.error.rstrip('.')}." if status.error else ""
        if status.failures > 1:
            why += f" It has failed {status.failures} times in a row."
        end = "" if status.state == "failed" else " It is tried again and again."
        self._tell(name, status, f"The source {name} gives no sound.{why}{end}", True)

    def _tell(self, name: str, status: SourceStatus, sentence: str, problem: bool) -> None:
        self._say(
            "source", source=name, place=status.place, state=status.state, sentence=sentence, problem=problem,
            restarts=status.restarts,
        )  # fmt: skip

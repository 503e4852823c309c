"""The store of a running monitor, which may be out of reach at its start or later."""

from __future__ import annotations

import time
from pathlib import Path

from harken.core.errors import HarkenError
from harken.service.store.store import Store, UndecidedError

#: seconds until the store is tried again: the first time, and at most, so that those who look at the store see within
#: `running.Running` that the monitor runs
_SOONEST_S, _LATEST_S = 1.0, 15.0


class StoreLink:
    """A store that is opened when it can be, and tried again after growing delays. Those who share it have one lock.

    place, monitor, owner: see `Store.open`. problem: why it cannot be used now; empty if it can.
    """

    def __init__(self, place: str | Path, monitor: str, owner: str = "") -> None:
        self.problem = ""
        #: how often it could not be used
        self.failures = 0
        self._place, self._monitor, self._owner = place, monitor, owner
        self._store: Store | None = None
        self._wait_s, self._next_try = _SOONEST_S, 0.0

    @property
    def store(self) -> Store | None:
        """The store, if it worked the last time."""
        return None if self.problem else self._store

    @property
    def readable(self) -> Store | None:
        """The store, if it was ever opened: what takes nothing more may still be read."""
        return self._store

    def opened(self, *, wait: bool = False) -> Store:
        """The store, opened if it is not, of which this process alone is the monitor. wait: see `Store.hold`.

        Raises StoreError where it cannot be reached, HarkenError for no store, TakenError where another process is.
        """
        if self._store is None:
            self._store = Store.open(self._place, self._monitor, self._owner)
        self._store.hold(wait=wait)
        return self._store

    def due(self, now: float) -> bool:
        """Whether it may be tried: it works, or has been left alone long enough. now: on the monotonic clock."""
        return not self.problem or now >= self._next_try

    def try_at_once(self) -> None:
        """Try it the next time, whatever has been."""
        self._next_try = 0.0

    def failed(self, error: HarkenError) -> None:
        """It could not be used."""
        self.problem = str(error)
        self.failures += 1
        if isinstance(error, UndecidedError):
            # Looks at another process follow each other, else its silence would not count, see `Lease`.
            self._wait_s = _SOONEST_S
        self._next_try = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LATEST_S)

    def worked(self) -> None:
        """It was used."""
        self.problem, self._wait_s = "", _SOONEST_S

    def close(self) -> None:
        """Give its connections up."""
        if self._store is not None:
            self._store.close()

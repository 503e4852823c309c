"""Records what a monitor does. It goes on where its store cannot be reached, at its start or later."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harken.core.errors import HarkenError
from harken.service.changes import Changes
from harken.service.outbox import MOST_MESSAGES, StoredOutbox
from harken.service.records import Message
from harken.service.requests import Request
from harken.service.store.features import FeatureLimits
from harken.service.store.lease import TakenError
from harken.service.store.running import SIGN_S
from harken.service.store.store import Store, StoredState, StoreError
from harken.service.store.thinning import thin
from harken.service.store_link import StoreLink

#: windows, and bytes of features, that are kept in memory while the store cannot be reached
MOST_WINDOWS, MOST_FEATURES = 50_000, 64 * 2**20
#: seconds from one pass over old scores to the next: while there is more to thin, and otherwise
_THINNING_S = 2.0, 3600.0


class Recorder:
    """The one way of a running monitor to its store. Threads may share it.

    `commit` never fails because of the store: what it does not take waits in memory, within limits (`MOST_WINDOWS`,
    `MOST_MESSAGES`), and `problem` says so. Messages have their number and go out meanwhile, see `outbox`. Of what
    exceeds the limits, the oldest scores and messages are lost, and counted; the last state of alarms and sources is
    not.

    place, monitor, owner: see `Store.open`. features: how much of them is kept. Raises HarkenError for a place that is
    no store, or where another process is this monitor.
    """

    def __init__(
        self,
        place: str | Path,
        monitor: str = "monitor",
        features: FeatureLimits = FeatureLimits(),
        owner: str = "",
    ) -> None:
        self.lost_windows = self.repeated_windows = 0
        self._feature_limits = features
        self._lock = threading.RLock()
        self._link = StoreLink(place, monitor, owner)
        self.outbox = StoredOutbox(self._link, self._lock)
        self._loaded: StoredState | None = None
        self._arrived: deque[Changes] = deque()
        self._backlog = Changes()
        self._closed = False
        #: another process is this monitor: nothing more is written
        self.taken: TakenError | None = None
        self._next_sign = 0.0
        self._next_thinning = time.monotonic() + _THINNING_S[0]
        self._connect()

    @property
    def problem(self) -> str:
        """Why the store cannot be used now; empty if all that was committed is in it."""
        return self._link.problem

    @property
    def store_failures(self) -> int:
        """How often the store could not be used."""
        return self._link.failures

    @property
    def waiting(self) -> int:
        """Windows and messages that wait in memory for the store."""
        return len(self._backlog.windows) + len(self._backlog.messages)

    @property
    def readable(self) -> Store | None:
        """The store, if it was ever reached, to read what it keeps."""
        return self._link.readable

    def seen(self) -> None:
        """Note in the store that the monitor runs; now and then."""
        with self._lock:
            if (store := self._link.store) is not None:
                try:
                    store.seen(datetime.now(UTC))
                except StoreError as error:
                    self._link.failed(error)

    def loaded(self) -> StoredState | None:
        """What the store held of an earlier run; None until it was reached for the first time."""
        return self._loaded

    def close(self, stopped_by: str = "") -> None:
        """Write what waits, if the store can be reached, and give its connections up; later changes are left out.

        stopped_by: what has stopped the monitor; it is written, too.
        """
        with self._lock:
            self._link.try_at_once()
            self._flush()
            if stopped_by and (store := self._link.store) is not None:
                with suppress(StoreError):
                    store.stopped(datetime.now(UTC), stopped_by)
            self._closed = True
            self._link.close()

    # ---- changes -----------------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> list[Message]:
        """Store the changes in one transaction, now or when the store can be reached; their messages, numbered.

        What several threads commit while another transaction is written goes into the next one together.
        """
        self._arrived.append(changes)
        with self._lock:
            if self._arrived and not self._closed:
                # In the order in which they came; those whose changes are among these find nothing left to do.
                while self._arrived:
                    self._take(self._arrived.popleft())
                self._flush()
                self._bound()
            return changes.messages

    def _take(self, changes: Changes) -> None:
        changes.messages = self.outbox.add(changes.messages)
        if not self._feature_limits.quota:
            changes.features = []
        if self._loaded is not None:
            self._loaded.follow(changes)
        self._backlog.add(changes)

    def _flush(self) -> None:
        """Write what waits; afterwards `problem` says whether that could be."""
        now = time.monotonic()
        if not self._link.due(now) or (not self.problem and self._backlog.empty and now < self._next_sign):
            return
        try:
            store = self._link.opened()
            if self._loaded is None:
                self._take_up(store)
            self.repeated_windows += store.commit(self._backlog)
            self._backlog = Changes()
            self._link.worked()
            self._next_sign = now + SIGN_S
            self.outbox.stored()
        except HarkenError as error:
            self.taken = error if isinstance(error, TakenError) else None
            self._link.failed(error)

    def _bound(self) -> None:
        backlog = self._backlog
        if (excess := len(backlog.windows) - MOST_WINDOWS) > 0:
            del backlog.windows[:excess]
            self.lost_windows += excess
        if self.problem:
            size, row = 0, len(backlog.features)
            while row and (size := size + len(backlog.features[row - 1].data)) <= MOST_FEATURES:
                row -= 1
            del backlog.features[:row]
        for records in (backlog.messages, backlog.history, backlog.sensors, backlog.evidence):
            if len(records) > MOST_MESSAGES:
                del records[: len(records) - MOST_MESSAGES]  # type: ignore[attr-defined]

    def _connect(self) -> None:
        """Open the store, and take up what is in it. Raises HarkenError for a place that is no store, or is in use."""
        try:
            self._take_up(self._link.opened(wait=True))
        except StoreError as error:
            self._link.failed(error)

    def _take_up(self, store: Store) -> None:
        """What is in the store; what was recorded before is numbered after that. Raises StoreError."""
        store.seen(datetime.now(UTC))
        loaded = store.load()
        self._link.worked()
        first = loaded.last_number
        self._backlog.messages = [replace(each, number=each.number + first) for each in self._backlog.messages]
        self.outbox.take_up(loaded)
        self._loaded = loaded

    # ---- requests ----------------------------------------------------------------------------------------

    def requests(self) -> list[Request]:
        """What people ask of the monitor and have no answer to; none while the store cannot be reached.

        Also the occasion to write what waits and to thin what is old: call it every second or so.
        """
        with self._lock:
            self._flush()
            if (store := self._link.store) is None:
                return []
            try:
                self._thin(store)
                return [request for request in store.requests() if request.number not in self._backlog.requests_done]
            except StoreError as error:
                self._link.failed(error)
                return []

    def _thin(self, store: Store) -> None:
        """A pass over old scores and messages, every hour, and soon again while there is more."""
        now = time.monotonic()
        if now >= self._next_thinning:
            more = thin(store, datetime.now(UTC), self._feature_limits)
            self._next_thinning = now + (_THINNING_S[0] if more else _THINNING_S[1])

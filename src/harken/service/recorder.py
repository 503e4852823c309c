"""Records what a monitor does. It goes on where its store cannot be reached, at its start or later."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harken.core.errors import HarkenError
from harken.service.changes import Changes, Request
from harken.service.records import Message
from harken.service.store.store import SinkState, Store, StoredState, StoreError
from harken.service.store.thinning import thin

#: windows, and messages, that are kept in memory while the store cannot be reached
MOST_WINDOWS, MOST_MESSAGES = 50_000, 10_000
#: seconds until the store is tried again: the first time, and at most
_SOONEST_S, _LATEST_S = 1.0, 60.0
#: a monitor without anything to store shows after so many seconds that it is running
SIGN_S = 10.0
#: seconds from one pass over old scores to the next: while there is more to thin, and otherwise
_THINNING_S = 2.0, 3600.0
#: messages at hand while the store has them, too
_MOST_AT_HAND = 1_000


class Recorder:
    """The one way of a running monitor to its store, and the outbox of its messages. Threads may share it.

    `commit` never fails because of the store: what it does not take waits in memory, within limits (`MOST_WINDOWS`,
    `MOST_MESSAGES`), and `problem` says so. Messages have their number and go out meanwhile: `pending` does not wait
    for the store. Of what exceeds the limits, the oldest scores and messages are lost, and counted; the last state of
    alarms and sources is not.

    place, monitor: see `Store.open`. Raises HarkenError for a place that is no store.
    """

    def __init__(self, place: str | Path, monitor: str = "monitor") -> None:
        self.problem = ""
        self.lost_windows = self.lost_messages = self.repeated_windows = 0
        self._place, self._monitor = place, monitor
        self._lock = threading.RLock()
        self._store: Store | None = None
        self._loaded: StoredState | None = None
        self._backlog = Changes()
        self._last_number = 0
        self._recent: deque[Message] = deque(maxlen=MOST_MESSAGES)
        self._sinks: dict[str, SinkState] = {}
        self._unsaved: set[str] = set()
        #: ids of messages that a sink had before the store was first reached
        self._early: dict[str, set[str]] = {}
        self._wait_s, self._next_try, self._next_sign = _SOONEST_S, 0.0, 0.0
        self._next_thinning = time.monotonic() + _THINNING_S[0]
        self._connect()

    @property
    def reachable(self) -> bool:
        """Whether all that was committed is in the store."""
        return not self.problem

    @property
    def waiting(self) -> int:
        """Windows and messages that wait in memory for the store."""
        return len(self._backlog.windows) + len(self._backlog.messages)

    def seen(self) -> None:
        """Note in the store that the monitor runs; now and then."""
        with self._lock:
            if self._store is not None and not self.problem:
                try:
                    self._store.seen(datetime.now(UTC))
                except StoreError as error:
                    self._failed(error)

    def loaded(self) -> StoredState | None:
        """What the store held of an earlier run; None until it was reached for the first time."""
        return self._loaded

    def close(self) -> None:
        """Write what waits, if the store can be reached, and give its connections up."""
        with self._lock:
            self._next_try = 0.0
            self._flush()
            if self._store is not None:
                self._store.close()

    # ---- changes -----------------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> list[Message]:
        """Store the changes in one transaction, now or when the store can be reached; their messages, numbered."""
        with self._lock:
            messages = []
            for message in changes.messages:
                self._last_number += 1
                messages.append(replace(message, number=self._last_number))
            changes.messages = messages
            if self._loaded is not None:
                self._loaded.follow(changes)
            if len(self._recent) + len(messages) > MOST_MESSAGES and self.problem:
                self.lost_messages += len(self._recent) + len(messages) - MOST_MESSAGES
            self._recent.extend(messages)
            self._backlog.add(changes)
            self._flush()
            self._bound()
            return messages

    def _flush(self) -> None:
        """Write what waits; afterwards `problem` says whether that could be."""
        now = time.monotonic()
        if now < self._next_try if self.problem else self._backlog.empty and now < self._next_sign:
            return
        try:
            if self._store is None or self._loaded is None:
                self._connect()
            if self._store is None or self._loaded is None:
                return
            self.repeated_windows += self._store.commit(self._backlog)
            self._backlog = Changes()
            if self._unsaved:
                self._store.save_sinks([self._sinks[sink] for sink in self._unsaved])
                self._unsaved.clear()
        except HarkenError as error:
            self._failed(error)
        else:
            self.problem, self._wait_s, self._next_sign = "", _SOONEST_S, now + SIGN_S
            while len(self._recent) > _MOST_AT_HAND:
                self._recent.popleft()

    def _failed(self, error: HarkenError) -> None:
        self.problem = str(error)
        self._next_try = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LATEST_S)

    def _bound(self) -> None:
        backlog = self._backlog
        if (excess := len(backlog.windows) - MOST_WINDOWS) > 0:
            del backlog.windows[:excess]
            self.lost_windows += excess
        for records in (backlog.messages, backlog.history, backlog.sensors, backlog.evidence):
            if len(records) > MOST_MESSAGES:
                del records[: len(records) - MOST_MESSAGES]  # type: ignore[attr-defined]

    def _connect(self) -> None:
        """Open the store, and take up what is in it; what was recorded before is numbered after that."""
        try:
            if self._store is None:
                self._store = Store.open(self._place, self._monitor)
            self._store.seen(datetime.now(UTC))
            loaded = self._store.load()
        except StoreError as error:
            self._failed(error)
            return
        self.problem, self._wait_s = "", _SOONEST_S
        first, early = loaded.last_number, list(self._recent)
        self._last_number += first
        self._backlog.messages = [replace(each, number=each.number + first) for each in self._backlog.messages]
        self._recent = deque((replace(each, number=each.number + first) for each in early), maxlen=MOST_MESSAGES)
        for name, state in self._sinks.items():
            self._early[name] = {message.id for message in early if message.number <= state.position}
            state.position = loaded.sinks[name].position if name in loaded.sinks else first
            self._unsaved.add(name)
        self._loaded = loaded

    # ---- outbox ------------------------------------------------------------------------------------------

    def use_sinks(self, names: Iterable[str]) -> None:
        """Set the sinks that messages go to. Others of an earlier run are forgotten; a new one begins now."""
        with self._lock:
            stored = self._loaded.sinks if self._loaded is not None else {}
            self._sinks = {
                name: self._sinks.get(name) or stored.get(name) or SinkState(name, self._last_number) for name in names
            }
            self._unsaved = set(self._sinks)
            if self._store is not None:
                with suppress(StoreError):
                    self._store.keep_sinks(self._sinks)
            self._flush()

    def waiting_messages(self) -> dict[str, int]:
        """Messages that each sink has still to get."""
        with self._lock:
            return {name: self._last_number - state.position for name, state in self._sinks.items()}

    def sinks(self) -> dict[str, SinkState]:
        """Copies of the states of the sinks in use, by name."""
        with self._lock:
            return {name: replace(state) for name, state in self._sinks.items()}

    def pending(self, sink: str, limit: int = 100) -> list[Message]:
        """The next messages for a sink, in order; the same again until they are `delivered`."""
        with self._lock:
            position, early = self._sinks[sink].position, self._early.get(sink, set())
            if position >= self._last_number:
                return []
            recent = self._recent
            messages: list[Message] = []
            if self._store is not None and (not recent or recent[0].number > position + 1):
                with suppress(StoreError):
                    messages = self._store.messages(position, limit)
            if not messages:
                messages = [message for message in recent if message.number > position]
            if not (early and messages):
                return messages[:limit]
            if not (late := [message for message in messages if message.id not in early]):
                self.delivered(sink, messages[-1])
                return self.pending(sink, limit)
            return late[:limit]

    def next_message(self, sink: str) -> Message | None:
        """The first message that the sink has not dealt with."""
        return next(iter(self.pending(sink, 1)), None)

    def delivered(self, sink: str, message: Message) -> None:
        """The sink has the message, for good."""
        with self._lock:
            state = self._sinks[sink]
            position = max(message.number, state.position)
            done = replace(state, position=position, delivered=datetime.now(UTC), failures=0, next_try=None, problem="")
            self._save(sink, done)

    def set_aside(self, sink: str, message: Message, reason: str) -> None:
        """The sink refused the message; it goes on with the next one."""
        with self._lock:
            state = self._sinks[sink]
            position = max(message.number, state.position)
            refused = replace(state, position=position, refused=state.refused + 1, problem=reason)
            self._save(sink, replace(refused, failures=0, next_try=None))

    def failed(self, sink: str, problem: str, next_try: datetime) -> None:
        """The sink did not take its next message; it is tried again at `next_try`. For those who look at its state."""
        with self._lock:
            state = self._sinks[sink]
            self._save(sink, replace(state, failures=state.failures + 1, next_try=next_try, problem=problem))

    def _save(self, sink: str, state: SinkState) -> None:
        with self._lock:
            self._sinks[sink] = state
            self._unsaved.add(sink)
            if self.problem or self._store is None:
                return
            try:
                self._store.save_sinks([self._sinks[name] for name in self._unsaved])
                self._unsaved.clear()
            except StoreError as error:
                self._failed(error)

    # ---- requests ----------------------------------------------------------------------------------------

    def requests(self) -> list[Request]:
        """What people ask of the monitor and have no answer to; none while the store cannot be reached.

        Also the occasion to write what waits and to thin what is old: call it every second or so.
        """
        with self._lock:
            self._flush()
            if self.problem or self._store is None:
                return []
            try:
                self._thin(self._store)
                return [request for request in self._store.requests() if request.number not in self._answered]
            except StoreError as error:
                self._failed(error)
                return []

    def _thin(self, store: Store) -> None:
        """A pass over old scores and messages, every hour, and soon again while there is more."""
        now = time.monotonic()
        if now >= self._next_thinning:
            more = thin(store, datetime.now(UTC))
            self._next_thinning = now + (_THINNING_S[0] if more else _THINNING_S[1])

    @property
    def _answered(self) -> set[int]:
        return set(self._backlog.requests_done)

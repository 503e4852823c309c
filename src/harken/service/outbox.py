"""Messages of a running monitor, and how far each sink is with them, whether or not the store can be reached."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from harken.core.errors import HarkenError
from harken.service.records import Message
from harken.service.store.store import SinkState, StoredState, StoreError
from harken.service.store_link import StoreLink

#: messages that are kept in memory while the store cannot be reached
MOST_MESSAGES = 10_000
#: messages at hand while the store has them, too
_MOST_AT_HAND = 1_000


class StoredOutbox:
    """Messages go out at least once, in order, to each sink at its own pace. Threads may share it.

    `pending` does not wait for the store. Of more than `MOST_MESSAGES` that it does not take, the oldest are lost,
    and counted. lock: of those who share `link`.
    """

    def __init__(self, link: StoreLink, lock: threading.RLock) -> None:
        self.lost = 0
        #: of the last message
        self.last_number = 0
        self._link, self._lock = link, lock
        self._recent: deque[Message] = deque(maxlen=MOST_MESSAGES)
        self._sinks: dict[str, SinkState] = {}
        self._stored: dict[str, SinkState] = {}
        self._unsaved: set[str] = set()
        #: ids of messages that a sink had before the store was first reached
        self._early: dict[str, set[str]] = {}

    # ---- for the recorder --------------------------------------------------------------------------------

    def add(self, messages: Iterable[Message]) -> list[Message]:
        """Number messages, which are pending from now on."""
        numbered = []
        for message in messages:
            self.last_number += 1
            numbered.append(replace(message, number=self.last_number))
        if len(self._recent) + len(numbered) > MOST_MESSAGES and self._link.problem:
            self.lost += len(self._recent) + len(numbered) - MOST_MESSAGES
        self._recent.extend(numbered)
        return numbered

    def take_up(self, loaded: StoredState) -> None:
        """The store was reached for the first time: what was numbered before is numbered after what is in it."""
        first, early = loaded.last_number, list(self._recent)
        self.last_number += first
        self._recent = deque((replace(each, number=each.number + first) for each in early), maxlen=MOST_MESSAGES)
        self._stored = loaded.sinks
        for name, state in self._sinks.items():
            self._early[name] = {message.id for message in early if message.number <= state.position}
            state.position = loaded.sinks[name].position if name in loaded.sinks else first
            self._unsaved.add(name)

    def stored(self) -> None:
        """All messages are in the store. Raises StoreError where it does not take the states of sinks."""
        self._save_unsaved()
        while len(self._recent) > _MOST_AT_HAND:
            self._recent.popleft()

    # ---- for those who deliver ---------------------------------------------------------------------------

    def use_sinks(self, names: Iterable[str]) -> None:
        """Set the sinks that messages go to. Others of an earlier run are forgotten; a new one begins now."""
        with self._lock:
            self._sinks = {
                name: self._sinks.get(name) or self._stored.get(name) or SinkState(name, self.last_number)
                for name in names
            }
            self._unsaved = set(self._sinks)
            if (store := self._link.store) is not None:
                try:
                    store.keep_sinks(self._sinks)
                    self._save_unsaved()
                except StoreError as error:
                    self._link.failed(error)

    def waiting_messages(self) -> dict[str, int]:
        """Messages that each sink has still to get."""
        with self._lock:
            return {name: self.last_number - state.position for name, state in self._sinks.items()}

    def sinks(self) -> dict[str, SinkState]:
        """Copies of the states of the sinks in use, by name."""
        with self._lock:
            return {name: replace(state) for name, state in self._sinks.items()}

    def pending(self, sink: str, limit: int = 100) -> list[Message]:
        """The next messages for a sink, in order; the same again until they are `delivered`."""
        with self._lock:
            position, early = self._sinks[sink].position, self._early.get(sink, set())
            if position >= self.last_number:
                return []
            recent, store = self._recent, self._link.readable
            messages: list[Message] = []
            if store is not None and (not recent or recent[0].number > position + 1):
                with suppress(StoreError):
                    messages = store.messages(position, limit)
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

    def last_messages(self, sink: str, kinds: Collection[str] | None = None) -> list[Message]:
        """Of each machine and kind the last message that the sink has dealt with, in earlier runs, too, or that came
        before it; without those of the store while it cannot be read. kinds: of these; None: all."""
        with self._lock:
            position, store = self._sinks[sink].position, self._link.readable
            messages: list[Message] = []
            if store is not None:
                with suppress(HarkenError):
                    messages = store.last_messages(position)
            messages += [message for message in self._recent if message.number <= position]
            last = {(message.machine, message.kind): message for message in messages}
            return [message for message in last.values() if kinds is None or message.kind in kinds]

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
        self._sinks[sink] = state
        self._unsaved.add(sink)
        try:
            self._save_unsaved()
        except StoreError as error:
            self._link.failed(error)

    def _save_unsaved(self) -> None:
        if self._unsaved and (store := self._link.store) is not None:
            store.save_sinks([self._sinks[name] for name in self._unsaved])
            self._unsaved.clear()

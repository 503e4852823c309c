"""Messages on their way from the outbox to a sink: one thread per sink, in order, at least once."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from harken.core.errors import HarkenError
from harken.service.records import Message
from harken.service.sinks.base import NotDeliveredError, RefusedError, Sink

log = logging.getLogger(__name__)


class Outbox(Protocol):
    """Messages in the store, and how far each sink is. Safe to use from several threads."""

    def next_message(self, sink: str) -> Message | None:
        """The first message that the sink has not dealt with."""

    def delivered(self, sink: str, message: Message) -> None:
        """The sink has the message, for good."""

    def set_aside(self, sink: str, message: Message, reason: str) -> None:
        """The sink refused the message; it goes on with the next one."""

    def failed(self, sink: str, problem: str, next_try: datetime) -> None:
        """The sink did not take its next message; it is tried again at `next_try`."""


@dataclass(frozen=True)
class Delays:
    """Seconds between attempts: `first`, then twice as long each time up to `longest`, each times 0.5 to 1 by chance,
    so that many monitors do not come at once when a receiver is back."""

    first: float = 1.0
    longest: float = 300.0

    def after(self, failures: int, chance: random.Random) -> float:
        """The delay after so many failures in a row, 1 and more."""
        return min(self.first * 2.0 ** min(failures - 1, 60), self.longest) * chance.uniform(0.5, 1.0)


@dataclass(frozen=True)
class DeliveryState:
    """How a sink is. failures: in a row. problem: the last one, empty where there is none."""

    delivered: int = 0
    refused: int = 0
    failures: int = 0
    problem: str = ""


class Delivery:
    """Takes messages of the outbox to one sink, in a thread of its own, until it is stopped.

    kinds: of messages that the sink gets; None: all. refused: called with what was set aside, and why.
    """

    #: seconds after which the outbox is looked at without having been woken
    LOOK_S = 2.0

    def __init__(
        self,
        sink: Sink,
        outbox: Outbox,
        *,
        kinds: Collection[str] | None = None,
        delays: Delays = Delays(),
        refused: Callable[[Sink, Message, str], None] = lambda sink, message, reason: None,
    ) -> None:
        self.sink = sink
        self.state = DeliveryState()
        self._outbox = outbox
        self._kinds = kinds
        self._delays = delays
        self._refused = refused
        self._chance = random.Random(sink.name)
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there may be messages."""
        self._awake.set()

    def stop(self) -> None:
        """Ask it to end; what is not delivered stays in the outbox."""
        self._stopping.set()
        self._awake.set()
        self.sink.interrupt()

    def join(self, seconds: float) -> bool:
        """Wait for its end; whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        started = False
        while not self._stopping.is_set():
            try:
                if not started:
                    self.sink.start()
                    started = True
                busy = self._deliver_next()
            except Exception as error:
                # Neither a broken receiver nor a store that is away for a while may end the thread.
                self._failed(error)
                busy = True
            if not busy:
                self._awake.wait(self.LOOK_S)
                self._awake.clear()
        if started:
            try:
                self.sink.close()
            except Exception as error:
                log.warning("sink %s: %s", self.sink.name, _reason(error))

    def _deliver_next(self) -> bool:
        """Whether there was a message."""
        message = self._outbox.next_message(self.sink.name)
        if message is None:
            return False
        if self._kinds is not None and message.kind not in self._kinds:
            self._outbox.delivered(self.sink.name, message)
            return True
        state = self.state
        try:
            self.sink.deliver(message)
        except RefusedError as error:
            reason = str(error)
            self._outbox.set_aside(self.sink.name, message, reason)
            log.error("sink %s: refused message %s, which is set aside: %s", self.sink.name, message.id, reason)
            self.state = DeliveryState(state.delivered, state.refused + 1)
            self._refused(self.sink, message, reason)
            return True
        self._outbox.delivered(self.sink.name, message)
        if state.failures:
            log.info("sink %s: delivers again, after %d failures", self.sink.name, state.failures)
        self.state = DeliveryState(state.delivered + 1, state.refused)
        return True

    def _failed(self, error: Exception) -> None:
        """Count the failure, say it if it is a new one, and wait."""
        before, problem = self.state, _reason(error)
        failures = before.failures + 1
        self.state = DeliveryState(before.delivered, before.refused, failures, problem)
        delay = self._delays.after(failures, self._chance)
        if isinstance(error, NotDeliveredError):
            delay = max(delay, min(error.after_s, self._delays.longest))
        if problem != before.problem:
            log.warning("sink %s: %s Trying again in %.0f s.", self.sink.name, problem, delay)
        if not isinstance(error, HarkenError):
            log.debug("sink %s", self.sink.name, exc_info=error)
        try:
            self._outbox.failed(self.sink.name, problem, datetime.now(UTC) + timedelta(seconds=delay))
        except HarkenError as of_store:
            log.warning("sink %s: %s", self.sink.name, of_store)
        self._stopping.wait(delay)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, HarkenError) else f"{type(error).__name__}: {error}."

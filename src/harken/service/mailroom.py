"""Sinks and their deliveries, as they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from harken.service.configuration.model import SinkEntry
from harken.service.delivery import Delivery, DeliveryState
from harken.service.outbox import StoredOutbox
from harken.service.records import Message
from harken.service.sinks.base import Sink


class Mailroom:
    """All sinks. refused: called with what one has refused for good, and why."""

    def __init__(self, outbox: StoredOutbox, refused: Callable[[Sink, Message, str], None]) -> None:
        self._outbox, self._refused = outbox, refused
        self._deliveries: dict[str, Delivery] = {}

    def use(self, made: Mapping[str, Sink], entries: Mapping[str, SinkEntry]) -> list[str]:
        """Deliver to the sinks of these entries. made: those that are new, or another than before. Others go on.

        Returns the names of those that are to be started.
        """
        gone = [name for name in self._deliveries if name in made or name not in entries]
        self.stop(gone, time.monotonic() + 1.0)
        self._outbox.use_sinks(entries)
        for name, sink in made.items():
            sink.last_messages = partial(self._outbox.last_messages, name, entries[name].messages)
            self._deliveries[name] = Delivery(sink, self._outbox, kinds=entries[name].messages, refused=self._refused)
        return [*made]

    def start(self, names: Iterable[str]) -> None:
        """Begin to deliver."""
        for name in names:
            self._deliveries[name].start()

    def wake(self) -> None:
        """There are messages."""
        for delivery in [*self._deliveries.values()]:
            delivery.wake()

    def stop(self, names: Iterable[str], end: float) -> None:
        """Deliver to these no longer. end: on the monotonic clock."""
        deliveries = [self._deliveries.pop(name) for name in [*names]]
        for delivery in deliveries:
            delivery.stop()
        for delivery in deliveries:
            delivery.join(max(0.1, end - time.monotonic()))

    @property
    def states(self) -> dict[str, DeliveryState]:
        """By the names of sinks."""
        return {name: delivery.state for name, delivery in [*self._deliveries.items()]}

"""The contract of sinks: a message is delivered, not yet, or refused for good."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from harken.core.errors import HarkenError
from harken.service.records import Message


class NotDeliveredError(HarkenError):
    """The receiver has not taken the message now; it is tried again. after_s: not before so many seconds."""

    def __init__(
        self, cause: str, *, file: str | None = None, next_step: str | None = None, after_s: float = 0.0
    ) -> None:
        super().__init__(cause, file=file, next_step=next_step)
        self.after_s = after_s


class RefusedError(HarkenError):
    """The receiver will never take this message; others it may. It is set aside and reported."""


class Sink(ABC):
    """A receiver of messages. name: unique in a monitor; its position in the outbox goes by it.

    `deliver` is called by one thread, with one message after the other, in order of their numbers. A message that was
    delivered shortly before a crash comes again, with the same id.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        #: the last message of each machine and kind that the receiver had, in this run or before: it may have lost them
        self.last_messages: Callable[[], Iterable[Message]] = tuple

    @abstractmethod
    def deliver(self, message: Message) -> None:
        """Return as soon as the receiver has the message, within a minute.

        Raises NotDeliveredError where it has not, and it may take it later; RefusedError where it never will.
        """

    def start(self) -> None:
        """Called once, before the first message, in the thread that delivers. Need not wait for the receiver."""

    def close(self) -> None:
        """Give up connections, within a second. Called in the thread that delivers."""

    def interrupt(self) -> None:
        """End a delivery in progress soon; called from another thread when the monitor ends."""

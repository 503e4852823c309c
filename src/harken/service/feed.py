"""A source that is listened to for years: begun again when it ends, fails or falls silent; its sound goes to taps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, Protocol

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.service.records import Block, Recording
from harken.service.sources.base import SoundSource, SourceError

#: `starting`: no sound yet. `silent`: none for its `patience_s`. `waiting`: to be begun again. `ended`: a file or pipe
#: that is over. `failed`: it cannot be listened to as it is configured
State = Literal["starting", "running", "silent", "waiting", "ended", "failed", "stopped"]

#: seconds until a source is begun again: the first time, and at most
SOONEST_S, LATEST_S = 1.0, 60.0
#: why a source waits that has ended in order
ENDED = Sentence("the source has ended")
#: sound comes in real time unless there is so much more of it than time has passed
_AHEAD, _AHEAD_S = 1.5, 0.5


@dataclass(frozen=True)
class SourceStatus:
    """How a source is.

    state: see `State`; since: of it. last_sound: when the last sound came; None: never. restarts: how often it was
    begun again. failures: how often it failed since it last gave sound for long. lost_windows: that came faster than
    they were judged, by machine. error: the last one, with what to do; it stays when the source runs again. next_try:
    when it is begun again.
    """

    place: str
    state: State = "starting"
    since: datetime | None = None
    last_sound: datetime | None = None
    restarts: int = 0
    failures: int = 0
    lost_windows: tuple[tuple[str, int], ...] = ()
    error: str = ""
    next_try: datetime | None = None

    @property
    def good(self) -> bool:
        """Whether sound comes, or is expected to."""
        return self.state in ("starting", "running")


class SoundTap(Protocol):
    """Takes the sound of a source: `harken.service.tap.Tap`."""

    machine: str
    #: in the source, behind all that need not be heard again
    position: int
    #: windows that came faster than they were judged
    lost: int

    def put(self, sound: Block | Recording, *, wait: Callable[[], bool], stop: threading.Event) -> None:
        """Take sound. wait: whether to wait for room; until `stop` is set."""

    def end(self) -> None:
        """No more sound comes."""


class Feed:
    """Listens to a source in a thread, and gives its sound to taps.

    tell: called with the status, in that thread, when the state changes; it must not wait. soonest_s, latest_s: delays
    before it is begun again; they double while it fails, until an attempt gave sound for `latest_s`. A source that
    gives some sound and ends in order, such as a file behind HTTP, has not failed.
    """

    def __init__(
        self,
        source: SoundSource,
        taps: Sequence[SoundTap],
        *,
        tell: Callable[[SourceStatus], None] = lambda status: None,
        soonest_s: float = SOONEST_S,
        latest_s: float = LATEST_S,
    ) -> None:
        self.source, self.taps = source, tuple(taps)
        self._tell, self._soonest_s, self._latest_s = tell, soonest_s, latest_s
        self._status = SourceStatus(source.place, since=datetime.now(UTC))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"source {source.place}", daemon=True)
        # What is read again begins where the machine that is least advanced has stopped.
        furthest = min if source.live is False else max
        self._end = furthest((tap.position for tap in self.taps), default=0)
        #: on the monotonic clock
        self._last_sound_s: float | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> bool:
        """End listening; whether the thread has ended in time. What waits in taps can still be taken."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        for tap in self.taps:
            tap.end()
        return not self._thread.is_alive()

    def status(self) -> SourceStatus:
        """How it is now."""
        return replace(self._status, lost_windows=tuple((tap.machine, tap.lost) for tap in self.taps))

    # ---- in the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        delay = self._soonest_s
        try:
            while not self._stop.is_set():
                began, error = time.monotonic(), self._attempt()
                if self._stop.is_set() or self._status.state in ("ended", "failed"):
                    break
                heard_s = 0.0 if self._last_sound_s is None else self._last_sound_s - began
                failures = self._status.failures + 1
                if heard_s >= self._latest_s or (heard_s > 0 and error == ENDED):
                    delay, failures = self._soonest_s, int(error != ENDED)
                self._status = replace(self._status, failures=failures)
                self._become("waiting", error, datetime.fromtimestamp(time.time() + delay, UTC))
                self._stop.wait(delay)
                delay = min(2 * delay, self._latest_s)
                self._status = replace(self._status, restarts=self._status.restarts + 1, next_try=None)
        finally:
            if self._stop.is_set():
                self._become("stopped")
            for tap in self.taps:
                tap.end()

    def _attempt(self) -> str:
        """Listen until it ends; why it did."""
        try:
            with closing(self._sound()) as sound:
                for piece in sound:
                    self._deliver(*piece)
        except SourceError as error:
            if self.source.again:
                return error.sentence
            self._become("failed", error.sentence)
        except HarkenError as error:
            self._become("failed", error.sentence)
        except Exception as error:  # a driver or decoder may raise anything, and may be better at another time
            return f"{type(error).__name__}: {error}"
        else:
            if self.source.endless and self.source.again:
                return ENDED
            self._become("ended")
        return ""

    def _sound(self) -> Generator[tuple[Block | Recording, Callable[[], bool]]]:
        """Pieces of sound, and whether to wait where there is no room for them; watches for silence."""
        source, began = self.source, time.monotonic()
        quiet_since, heard_s, base = began, 0.0, self._end

        def ahead() -> bool:
            if source.live is not None:
                return not source.live
            return heard_s > _AHEAD * (time.monotonic() - began) + _AHEAD_S

        with closing(source.listen(self._stop)) as pieces:
            for piece in pieces:
                now = time.monotonic()
                if piece is None:
                    if source.patience_s is not None and now - quiet_since > source.patience_s:
                        self._silent(source.patience_s)
                    continue
                quiet_since = now
                if isinstance(piece, Block):
                    seconds = piece.samples_CS.shape[1] / piece.sample_rate
                    if heard_s == 0 and self._last_sound_s is not None and source.live is not False:
                        # Sound is missing since the last attempt, for as long as there was none.
                        missing_s = now - seconds - self._last_sound_s
                        base += max(1, round(missing_s * piece.sample_rate))
                    heard_s += seconds
                piece = replace(piece, position=base + piece.position)
                self._end, self._last_sound_s = piece.end_position, now
                self._status = replace(self._status, last_sound=datetime.now(UTC))
                self._become("running")
                yield piece, ahead

    def _silent(self, patience_s: float) -> None:
        if self.source.again:
            raise SourceError(
                f"has given no sound for {patience_s:g} s",
                file=self.source.place,
                next_step="Check that it is connected and sends",
            )
        self._become("silent")

    def _deliver(self, piece: Block | Recording, ahead: Callable[[], bool]) -> None:
        for tap in self.taps:
            tap.put(piece, wait=ahead, stop=self._stop)

    def _become(self, state: State, error: str = "", next_try: datetime | None = None) -> None:
        before = self._status
        if before.state == state and state != "waiting" and (not error or error == before.error):
            return
        self._status = replace(
            before, state=state, since=datetime.now(UTC), error=error or before.error, next_try=next_try
        )
        self._tell(self.status())

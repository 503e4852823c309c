"""Windows of all machines, judged on all cores: those that wait and share a model together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from harken.core.threads import one_thread_for_good
from harken.core.workers import cores
from harken.monitor.detector import Detector
from harken.monitor.verdict import Verdict
from harken.service.daemon_threads import DaemonThreads
from harken.service.records import Window

#: windows that are judged together, at most: so many, or those of so many seconds of judging
_MOST, _MOST_S = 32, 0.5


class _Ticket:
    """A window that waits for its verdict."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.done = threading.Event()
        self.verdict: Verdict | None = None
        self.error: Exception | None = None


class _Model:
    """A detector and its windows that wait.

    Encoders must not be shared by threads: a network judges for one thread at a time, a cheap encoder has copies.
    """

    def __init__(self, detector: Detector, threads: int) -> None:
        self.detector = detector
        #: held while the detector itself is used, rather than a copy of it
        self.alone = threading.Lock()
        self.waiting: deque[_Ticket] = deque()
        #: seconds that a window took lately
        self.seconds = _MOST_S
        self._copies: list[Detector] = []
        self._shareable = detector.another() is not None
        self._more = threads if self._shareable else 0
        self._lock = threading.Lock()
        # What torch is asked for by one thread would count for all.
        detector.prepare()
        one_thread_for_good()

    @contextmanager
    def using(self) -> Iterator[Detector | None]:
        """A detector for this thread; None where others have all."""
        with self._lock:
            detector = self._copies.pop() if self._copies else None
            if detector is None and self._more:
                detector, self._more = self.detector.another(), self._more - 1
        if detector is not None:
            try:
                yield detector
            finally:
                self._copies.append(detector)
        elif not self._shareable and self.alone.acquire(blocking=False):
            try:
                yield self.detector
            finally:
                self.alone.release()
        else:
            yield None

    def take(self) -> list[_Ticket]:
        """Windows to judge together."""
        most = max(1, min(_MOST, int(_MOST_S / self.seconds)))
        with self._lock:
            return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]


class JudgingPool:
    """Judges for all machines. Threads may share it. threads: that judge at once; None: one per core.

    A verdict is, to the last bit, that of the window alone.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._count = threads or cores()
        self._slots = threading.BoundedSemaphore(self._count)
        self._threads = DaemonThreads("judge", self._count)
        self._models: dict[int, _Model] = {}
        self._lock = threading.Lock()
        #: when, on the monotonic clock, what is being judged was begun, by thread
        self._begun: dict[int, float] = {}

    def judge(self, detector: Detector, window: Window) -> Verdict:
        """The verdict on a window, when its turn has come; one with `error` where it cannot be scored."""
        model, ticket = self._model(detector), _Ticket(window)
        model.waiting.append(ticket)
        self._threads.submit(lambda: self._work(model))
        ticket.done.wait()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.verdict is not None
        return ticket.verdict

    @contextmanager
    def alone(self, detector: Detector) -> Iterator[None]:
        """Context in which this thread has the detector for itself, and a core."""
        model = self._model(detector)
        try:
            with model.alone, self._working():
                yield
        finally:
            self._look_again(model)

    @property
    def waiting(self) -> int:
        """Windows that wait."""
        return sum(len(model.waiting) for model in [*self._models.values()])

    def hangs(self, now: float, after_s: float) -> bool:
        """Whether something has been judged for so many seconds. now: on the monotonic clock."""
        return any(now - begun > after_s for begun in [*self._begun.values()])

    def keep(self, detectors: Iterable[Detector]) -> None:
        """Drop others from memory."""
        with self._lock:
            kept = {id(detector) for detector in detectors}
            self._models = {key: model for key, model in self._models.items() if key in kept}

    def _model(self, detector: Detector) -> _Model:
        with self._lock:
            if id(detector) not in self._models:
                self._models[id(detector)] = _Model(detector, self._count)
            return self._models[id(detector)]

    @contextmanager
    def _working(self) -> Iterator[None]:
        thread = threading.get_ident()
        with self._slots:
            self._begun[thread] = time.monotonic()
            try:
                yield
            finally:
                del self._begun[thread]

    def _work(self, model: _Model) -> None:
        """Judge what waits for this model, unless as many threads do as may."""
        with model.using() as detector:
            if detector is None:
                return
            with self._working():
                tickets, begun = model.take(), time.monotonic()
                if tickets:
                    _score(detector, tickets)
                    model.seconds += 0.3 * ((time.monotonic() - begun) / len(tickets) - model.seconds)
        self._look_again(model)

    def _look_again(self, model: _Model) -> None:
        """For what has come while its detector was in use."""
        if model.waiting:
            self._threads.submit(lambda: self._work(model))


def _score(detector: Detector, tickets: list[_Ticket]) -> None:
    try:
        sounds = [(ticket.window.samples_CS, ticket.window.sample_rate) for ticket in tickets]
        for ticket, verdict in zip(tickets, detector.score_samples(sounds), strict=True):
            ticket.verdict = verdict
    except Exception as error:
        if len(tickets) == 1:
            tickets[0].error = error
        else:
            # A bug that one of them has met must not cost the others their verdicts.
            for ticket in tickets:
                _score(detector, [ticket])
    finally:
        for ticket in tickets:
            ticket.done.set()

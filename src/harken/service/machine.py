"""One machine while the monitor runs: a thread that judges its sound and records what follows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from harken.core.errors import HarkenError
from harken.service.assembly import LoadedModel
from harken.service.changes import Changes, ModelInUse, WindowScore
from harken.service.configuration.model import MonitoredEntry
from harken.service.listener import MachineListener
from harken.service.records import HeardWindow, Message

log = logging.getLogger(__name__)

#: seconds for which a thread waits for sound before it looks whether it is to end
_LOOK_S = 0.5


class MachineRunner:
    """Judges one machine.

    commit: stores changes; called with those of each window, together with where its source can be taken up again, so
    that both are there or neither. heard: called with each window that was stored.
    """

    def __init__(
        self,
        name: str,
        entry: MonitoredEntry,
        model: LoadedModel,
        listener: MachineListener,
        *,
        commit: Callable[[Changes], list[Message]],
        heard: Callable[[HeardWindow], None] = lambda heard: None,
    ) -> None:
        self.name, self.entry, self.model, self.listener = name, entry, model, listener
        self._commit, self._heard = commit, heard
        self._stopping = threading.Event()
        self._drain_until = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"machine {name}", daemon=True)
        #: on the monotonic clock: when its thread last came round
        self.alive_s = time.monotonic()

    def start(self) -> None:
        """Begin to judge."""
        now = datetime.now(UTC)
        self._commit(Changes(models=[ModelInUse(self.name, self.model.digest, str(self.entry.model), now)]))
        self._thread.start()

    def stop(self, drain_s: float) -> None:
        """Ask it to end when what waits is judged, or after `drain_s` seconds; its feed is stopped before."""
        self._drain_until = time.monotonic() + drain_s
        self._stopping.set()

    def join(self, seconds: float) -> bool:
        """Wait for its end; whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def finished(self) -> bool:
        """Whether all sound there will be is judged and recorded."""
        return self.listener.finished and not self._thread.is_alive()

    def hangs(self, now: float, after_s: float) -> bool:
        """Whether its thread runs, and did not come round for so many seconds. now: on the monotonic clock."""
        return self._thread.is_alive() and now - self.alive_s > after_s

    def _run(self) -> None:
        while not self.listener.finished and time.monotonic() < self._drain_until:
            self.alive_s = time.monotonic()
            try:
                for heard in self.listener.hear(0.0 if self._stopping.is_set() else _LOOK_S):
                    self.alive_s = time.monotonic()
                    self._record(heard)
                    if time.monotonic() > self._drain_until:
                        break
            except HarkenError as error:
                log.error("machine %s: %s", self.name, error)
            except Exception:
                # A bug in one machine must not end the others, nor this one for good.
                log.exception("machine %s: unexpected", self.name)
                time.sleep(_LOOK_S)

    def _record(self, heard: HeardWindow) -> None:
        changes = Changes(windows=[WindowScore.of(heard)], resume={**heard.window.resume})
        self._commit(changes)
        self._heard(heard)

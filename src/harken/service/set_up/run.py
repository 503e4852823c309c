"""A monitor that is set up while it runs, in a folder that is empty at first."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from harken.core.errors import HarkenError
from harken.service.changes import Changes
from harken.service.configuration.read import read_configuration
from harken.service.live_sound import LiveSound
from harken.service.monitor import Monitor
from harken.service.records import Resume
from harken.service.set_up.set_up import SetUp
from harken.service.store.store import Store

log = logging.getLogger(__name__)


class SetUpRun:
    """Runs the monitor of a set-up as soon as there is a configuration, and has it read again what is added.

    started: called when a monitor begins. Raises HarkenError, at once, where there is one that cannot run.
    """

    def __init__(self, set_up: SetUp, started: Callable[[], None] = lambda: None) -> None:
        self.set_up, self._started = set_up, started
        self.file = set_up.place.configuration
        self._monitor: Monitor | None = None
        self._stopping, self._written = threading.Event(), threading.Event()
        self._learned: Resume = {}
        set_up.started = self._take_up
        if self.file.exists():
            self._monitor = Monitor(read_configuration(self.file))

    def run(self) -> None:
        """Return when `stop` was called, after everything has ended."""
        while not self._stopping.is_set():
            if self._monitor is None:
                self._written.wait()
                self._written.clear()
                if self._stopping.is_set():
                    return
                self._begin()
            if self._monitor is not None:
                self._started()
                self._monitor.run()
                return

    def stop(self, by: str = "the program") -> None:
        """Ask `run` to end; from any thread or signal handler. by: see `Monitor.stop`."""
        self._stopping.set()
        self._written.set()
        if self._monitor is not None:
            self._monitor.stop(by)

    def reload_from(self, file: Path) -> None:
        """Take up what the file says, soon; from any thread or signal handler."""
        if self._monitor is not None:
            self._monitor.reload_from(file)
        else:
            self._written.set()

    def live(self, monitor: str, machine: str) -> LiveSound | None:
        """The sound of a machine of this monitor."""
        return None if self._monitor is None else self._monitor.live(monitor, machine)

    def _take_up(self, learned: Resume) -> None:
        """A machine was added. learned: what of its source need not be heard."""
        if self._monitor is not None:
            self._monitor.commit(Changes(resume=dict(learned)))
        else:
            self._learned = learned
        self.reload_from(self.file)

    def _begin(self) -> None:
        try:
            configuration = read_configuration(self.file)
            store = Store.open(configuration.store, configuration.monitor)
            store.commit(Changes(resume=dict(self._learned)))
            store.close()
            self._monitor = Monitor(configuration)
        except HarkenError as error:
            log.error("%s", error)
            self.set_up.fail(str(error))

"""A monitor in fast motion: the seal of a simulated pump begins to leak, the alarm comes, somebody repairs it, or says
that it is normal."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.monitor.detector import Detector
from harken.monitor.versions import list_versions
from harken.plant.simulate import Item, render
from harken.service.configuration.read import checked
from harken.service.machine import MachineRunner
from harken.service.machine_alarm import MachineAlarm
from harken.service.monitor import Monitor
from harken.service.records import HeardWindow
from harken.service.requests import Request

MACHINE, FAULT = "pump", "leak"
RATE, SECONDS = 16_000, 2.0
#: each recording stands for so much time; in the demo they come so fast
EVERY, EVERY_S = timedelta(minutes=10), 0.25
#: normal recordings that the model learns from, and that come before the fault; of the fault until it is severe
NORMAL, HEALTHY, DEVELOPS = 150, 12, 40
#: seconds for which the demo waits for an answer before it gives it itself
PATIENCE_S = 60.0
#: seconds after which it gives up
LONGEST_S = 600.0
#: recordings that may wait to be judged
_AHEAD = 4
_BEGIN = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
_MARK = "demo-of-harken-monitor.txt"


class Demo:
    """The demo in a folder. say: prints a line. patience_s: None: `PATIENCE_S`. started: called with the monitor.

    Raises HarkenError for a folder that holds anything else.
    """

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        *,
        patience_s: float | None = None,
        started: Callable[[Monitor], None] = lambda monitor: None,
    ) -> None:
        self.folder, self._say, self._started = folder, say, started
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).is_file():
            raise HarkenError("holds other things than a demo", file=folder, next_step="Give another --store")
        self._repaired, self._lasts = threading.Event(), threading.Event()
        self._ended = threading.Event()
        self._over = False
        #: recordings that were judged
        self.heard = 0

    def run(self) -> bool:
        """Run it; whether the alarm came, and the machine was normal again."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _MARK, b"Written by harken monitor --demo, which overwrites this folder.\n")
        for name in ("recordings", "evidence"):
            rmtree(folder / name, ignore_errors=True)
        for file in folder.glob("monitor.db*"):
            file.unlink()
        (folder / "recordings").mkdir()
        if (folder / f"{MACHINE}.harken").exists() and len(list_versions(folder / f"{MACHINE}.harken")) > 1:
            # It has learned in an earlier demo.
            rmtree(folder / f"{MACHINE}.harken")
        self._learn()
        data = {
            "sources": {MACHINE: {"kind": "folder", "path": "recordings", "settle_s": 0.1}},
            "machines": {MACHINE: {"source": MACHINE, "model": f"{MACHINE}.harken"}},
            "http": None,
        }
        monitor = Monitor(checked(data, folder.absolute()), heard=self._count)
        self._started(monitor)
        writer = threading.Thread(target=self._write_recordings, daemon=True)
        story = threading.Thread(target=self._tell, args=(monitor,), daemon=True)
        self._say(f"Every recording of {SECONDS:g} s stands for {EVERY.seconds // 60} minutes. In another terminal:")
        self._say(f"  harken monitor status --store {folder}")
        writer.start()
        story.start()
        try:
            monitor.run()
        finally:
            self._ended.set()
        return self._over

    # ---- the machine -------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """A model of the healthy pump; kept for the next demo."""
        model = self.folder / f"{MACHINE}.harken"
        if model.exists():
            return
        begun, normal = time.monotonic(), self.folder / "normal"
        self._say(f"simulating {NORMAL} recordings of a healthy {MACHINE}, and learning how it sounds")
        normal.mkdir(exist_ok=True)
        for row in range(NORMAL):
            self._write(normal, _BEGIN + (row - NORMAL) * EVERY, _rendered(row))
        detector = Detector.fit(normal, workers=0, every=f"{EVERY.seconds // 60}min", order="name")
        detector.save(model)
        self._say(f"learned in {time.monotonic() - begun:.0f} s")

    def _count(self, heard: HeardWindow) -> None:
        self.heard += 1

    def _write_recordings(self) -> None:
        """Healthy, then with a fault that grows, or lasts as it is, until it is repaired; then healthy."""
        row, grown = 0, 0
        while not self._ended.wait(EVERY_S):
            if row > self.heard + _AHEAD:
                continue  # a slow computer sees the same story
            severity = None
            if row == HEALTHY:
                self._say(f"{_time(row)}: the seal of the {MACHINE} begins to leak; nobody knows")
            if row >= HEALTHY and not self._repaired.is_set():
                severity = min(1.0, grown / DEVELOPS)
                grown += not self._lasts.is_set()
            self._write(self.folder / "recordings", _BEGIN + row * EVERY, _rendered(NORMAL + row, severity))
            row += 1

    @staticmethod
    def _write(folder: Path, begin: datetime, samples_S: NDArray[np.int16]) -> None:
        content = io.BytesIO()
        wavfile.write(content, RATE, samples_S)
        write_atomically(folder / f"{MACHINE}_{begin:%Y-%m-%d_%H-%M-%S}.wav", content.getvalue())

    # ---- the people --------------------------------------------------------------------------------------

    def _tell(self, monitor: Monitor) -> None:
        """Wait for the alarm, for somebody who knows, and for the end."""
        begun = time.monotonic()
        machine = monitor.fleet.machines[MACHINE]
        if self._until(lambda: machine.alarm.state.phase == "unacknowledged", begun + LONGEST_S):
            self._say(f"the alarm came {time.monotonic() - begun:.0f} s after the start. Answer it with one of:")
            self._say(f"  harken monitor ack {MACHINE} --store {self.folder}")
            self._say(f"  harken monitor normal {MACHINE} --store {self.folder}")
            self._say(f"  harken monitor fault {MACHINE} --store {self.folder}")
            self._wait_for_answer(machine.alarm)
            if self._kind(machine) != "update" or self._wait_for_rollback(machine):
                self._say(f"the {MACHINE} is repaired")
                self._repaired.set()
            if self._until(lambda: machine.alarm.state.phase == "normal", time.monotonic() + LONGEST_S):
                self._over = True
                self._say("the machine is normal again, and the alarm is over. What was kept of it:")
                self._say(f"  harken monitor alarms --store {self.folder}")
                self._say(f"  {self.folder / 'evidence'}")
        monitor.stop("the end of the demo")

    def _wait_for_answer(self, alarm: MachineAlarm) -> None:
        if not self._until(lambda: alarm.state.phase != "unacknowledged", time.monotonic() + self._patience_s):
            self._acknowledge(alarm)

    def _wait_for_rollback(self, machine: MachineRunner) -> bool:
        """The leak was called normal. Whether that was undone, and the alarm answered that came then."""
        self._lasts.set()
        self._say(
            f"the model has learned that this is normal; the {MACHINE} leaks as before. The alarm ends by itself."
        )
        self._say(f"Undo it with: harken monitor rollback {MACHINE} --store {self.folder}")
        undone = self._until(lambda: self._kind(machine) == "rollback", time.monotonic() + self._patience_s)
        if undone and self._until(lambda: machine.alarm.state.phase == "unacknowledged", time.monotonic() + LONGEST_S):
            self._say("the alarm came again")
            self._wait_for_answer(machine.alarm)
        return undone

    @staticmethod
    def _kind(machine: MachineRunner) -> str:
        """What made the version of the model in use."""
        return machine.model.detector.fitted.version.kind

    def _acknowledge(self, alarm: MachineAlarm) -> None:
        self._say(f"nobody has answered for {self._patience_s:.0f} s; the demo does")
        alarm.answer(Request(MACHINE, "acknowledge", "demo", datetime.now(UTC)))

    def _until(self, condition: Callable[[], bool], end: float) -> bool:
        while not condition():
            if self._ended.wait(0.1) or time.monotonic() > end:
                return False
        return True


def _rendered(row: int, severity: float | None = None) -> NDArray[np.int16]:
    """(S,) a recording of the pump at one of its flows."""
    item = Item(MACHINE, "train", "source", "normal", row)
    fault = None if severity is None else (FAULT, severity)
    return render(item, samples=round(SECONDS * RATE), rate=RATE, fault=fault)


def _time(row: int) -> str:
    return f"{_BEGIN + row * EVERY:%Y-%m-%d %H:%M}"

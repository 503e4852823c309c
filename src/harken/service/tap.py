"""The sound of a source for one machine: windows that wait to be judged, within a bound."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from harken.core.errors import HarkenError
from harken.service.live_sound import LiveSound
from harken.service.records import Block, Recording, Resume, Window
from harken.service.windows import Windower

#: windows that wait at most
CAPACITY = 8


class Tap:
    """Windows of one machine. `Feed` puts sound in, in one thread; another one takes windows out.

    machine: its name. seconds, hop_s: see `Windower`. channels: numbers of those that belong to it, from 0; None: all.
    resume: what is stored of an earlier run. capacity: of windows that wait. lost: whole windows that came while so
    many waited; their numbers are left out. live: what is heard, for people who watch.
    """

    def __init__(
        self,
        machine: str,
        seconds: float,
        *,
        hop_s: float | None = None,
        channels: Sequence[int] | None = None,
        resume: Resume | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        state = (resume or {}).get(machine, {})
        self.machine = machine
        self.lost = 0
        self.live = LiveSound()
        self._channels = None if channels is None else list(channels)
        self._windower = Windower(seconds, hop_s, number=int(state.get("number", 0)), name=machine)
        #: position in the source behind all that is judged already
        self.position = int(state.get("position", 0))
        self._capacity = capacity
        self._waiting: deque[Window | Recording] = deque()
        self._ended = self._woken = False
        self._changed = threading.Condition()

    # ---- for the feed ------------------------------------------------------------------------------------

    def put(self, sound: Block | Recording, *, wait: Callable[[], bool], stop: threading.Event) -> None:
        """Add sound. wait: whether to wait for room, rather than to lose the oldest window.

        Raises HarkenError for sound without the channels of this machine.
        """
        if isinstance(sound, Recording):
            self._add(sound, wait, stop)
            return
        if self._channels is not None:
            count = len(sound.samples_CS)
            if max(self._channels) >= count:
                raise HarkenError(
                    f"{self.machine} listens to channel {max(self._channels) + 1} of {count}",
                    next_step="Correct the channels of this machine",
                )
            sound = replace(sound, samples_CS=sound.samples_CS[self._channels])
        self.live.hear(sound.samples_CS, sound.sample_rate, sound.start)
        behind = self.position - sound.position
        if behind >= sound.samples_CS.shape[1]:
            return  # other machines of the source have not judged it yet
        if behind > 0:
            sound = replace(
                sound,
                samples_CS=sound.samples_CS[:, behind:],
                position=self.position,
                start=sound.start + timedelta(seconds=behind / sound.sample_rate),
                origin_position=sound.origin_position + behind,
            )
        for window in self._windower.push(sound):
            self._add(window, wait, stop)

    def _add(self, item: Window | Recording, wait: Callable[[], bool], stop: threading.Event) -> None:
        with self._changed:
            while len(self._waiting) >= self._capacity and not stop.is_set() and wait():
                self._changed.wait(0.1)
            if len(self._waiting) >= self._capacity:
                if stop.is_set():
                    return
                # What is new says more about the machine as it is.
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """No more sound comes."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # ---- for the judge -----------------------------------------------------------------------------------

    def get(self, timeout: float | None = None) -> Window | Recording | None:
        """The next window, or recording of its own; None after `timeout` seconds, where it is woken, and at the end."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._waiting and not self._ended and not self._woken:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            self._woken = False
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._changed.notify_all()
            return item

    def wake(self) -> None:
        """Have who waits for sound look for something else."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    @property
    def finished(self) -> bool:
        """Whether nothing waits, and no more comes."""
        with self._changed:
            return self._ended and not self._waiting

    @property
    def waiting(self) -> int:
        """Windows and recordings that wait."""
        return len(self._waiting)

"""The sound of a source while a machine is set up: its picture, its level, whether it can be used."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from harken.audio.decode import ALL_FORMATS, decode
from harken.audio.moments import Moments
from harken.audio.quality import inspect
from harken.core.errors import AudioError
from harken.service.feed import Feed, SourceStatus
from harken.service.live_sound import LiveSound
from harken.service.records import Block, Recording
from harken.service.set_up.recorder import NormalRecorder
from harken.service.sources.base import SoundSource

#: seconds of sound that its quality is judged by
_JUDGED_S = 2.0
#: below this level in dBFS, in good surroundings, there is a machine that is off, or a microphone that is not connected
QUIET_DB = -70.0
#: below this rate in Hz, much of what machines say is not heard
_LOW_RATE = 16_000


@dataclass(frozen=True)
class SoundNow:
    """How sound is now. level_db, peak_db: dBFS. sample_rate: Hz. concerns: kinds of findings of `quality`, and
    `quiet`, `low rate`; empty: it is good. seconds_ago: since the last sound; None before any."""

    level_db: float
    peak_db: float
    sample_rate: int
    concerns: tuple[str, ...]
    seconds_ago: float | None


class Ear:
    """Listens to a source, and records it where that is asked for. It is a tap of its own feed.

    Files are heard one after the other by `work`, which somebody calls now and then; files that were there when it
    began are distinguished from later ones by `first_look`.
    """

    def __init__(self, source: SoundSource, machine: str) -> None:
        self.machine, self.position, self.lost = machine, 0, 0
        self.live = LiveSound()
        self.recorder: NormalRecorder | None = None
        #: files that wait to be recorded, in order
        self._files: deque[Recording] = deque()
        #: all files that were given
        self.given: list[Recording] = []
        self._shown = 0
        self._recent: deque[Block] = deque()
        self._concerns: tuple[str, ...] = ()
        self._judged_s = self._heard_s = 0.0
        self._lock = threading.RLock()
        self._open = ExitStack()
        self._open.enter_context(self.live.watched())
        self.feed = Feed(source, [self], latest_s=10.0)
        self.feed.start()

    # ---- for the feed ------------------------------------------------------------------------------------

    def put(self, sound: Block | Recording, *, wait: Callable[[], bool], stop: threading.Event) -> None:
        """See `SoundTap`."""
        with self._lock:
            if isinstance(sound, Recording):
                self.given.append(sound)
                if self.recorder is not None:
                    self._files.append(sound)
                return
            self._heard_s = time.monotonic()
            self.live.hear(sound.samples_CS, sound.sample_rate, sound.start)
            self._recent.append(sound)
            while len(self._recent) > 1 and (
                sum(block.samples_CS.shape[1] for block in self._recent) - self._recent[0].samples_CS.shape[1]
                > _JUDGED_S * sound.sample_rate
            ):
                self._recent.popleft()
            if self.recorder is not None:
                self.recorder.hear(sound)

    def end(self) -> None:
        """See `SoundTap`."""

    # ---- for people --------------------------------------------------------------------------------------

    @property
    def status(self) -> SourceStatus:
        """Of the source."""
        return self.feed.status()

    def record(self, recorder: NormalRecorder, *, existing: bool) -> None:
        """Record from now on. existing: also the files that are there already."""
        with self._lock:
            self._files = deque(self.given if existing else ())
            self.recorder = recorder

    def stop_recording(self) -> None:
        """Record no more."""
        with self._lock:
            if self.recorder is not None:
                self.recorder.stop()
            self._files.clear()

    def work(self) -> None:
        """Record one of the files that wait, and show the last one that came."""
        with self._lock:
            recorder, waiting = self.recorder, self._files.popleft() if self._files else None
            last = self.given[-1] if len(self.given) > self._shown else None
            self._shown = len(self.given)
        if recorder is not None and waiting is not None:
            recorder.take(waiting)
        if last is not None:
            self._show(last)

    @property
    def works(self) -> bool:
        """Whether files wait to be recorded."""
        return bool(self._files)

    def heard(self) -> SoundNow:
        """How it sounds now."""
        columns = self.live.since(2**62)
        with self._lock:
            now, recent = time.monotonic(), [*self._recent]
            ago = now - self._heard_s if self._heard_s else None
            if recent and now - self._judged_s > 1.0:
                self._judged_s = now
                same = [block for block in recent if len(block.samples_CS) == len(recent[-1].samples_CS)]
                self._concerns = _concerns(np.concatenate([block.samples_CS for block in same], axis=1),
                                           recent[-1].sample_rate)  # fmt: skip
            concerns = self._concerns
        if ago is None:
            concerns = ("nothing",)
        level_db, peak_db = columns.level_db, columns.peak_db
        return SoundNow(level_db, peak_db, columns.sample_rate, concerns, ago)

    def close(self) -> None:
        """Listen no more."""
        self.stop_recording()
        self.feed.stop()
        self._open.close()

    def _show(self, recording: Recording) -> None:
        try:
            audio = decode(recording.file, formats=ALL_FORMATS)
        except AudioError:
            self._concerns = ("unreadable",)
            return
        with self._lock:
            self._heard_s = self._judged_s = time.monotonic()
            self._concerns = _concerns(audio.samples_CS, audio.sample_rate)
        self.live.hear(audio.samples_CS, audio.sample_rate, recording.start)


def _concerns(samples_CS: np.ndarray, sample_rate: int) -> tuple[str, ...]:
    findings = inspect(Moments(samples_CS), sample_rate, shortest_seconds=0.0)
    kinds = [str(finding.kind) for finding in findings if not finding.harmless]
    if not kinds and samples_CS.size:
        centred_CS = samples_CS - samples_CS.mean(axis=1, keepdims=True)
        if float(np.sqrt(np.mean(centred_CS**2))) < 10 ** (QUIET_DB / 20):
            kinds.append("quiet")
    return (*kinds, *(("low rate",) if sample_rate < _LOW_RATE else ()))

"""Whether a sensor can be trusted: statuses of NAMUR NE 107, from what is heard and from how the source is.

NE 107 (Self-monitoring and diagnosis of field devices, 2012) has four statuses beside good. Here:
failure: there is no sound, or it cannot be that of any machine (gaps, repeated blocks, clipping, a dead channel).
check function: somebody works on the sensor. out of specification: another level, with the spectrum as ever: gain or
place have changed. maintenance required: sound is judged, with concerns (an unusual level, some clipping).
That the machine is off is a state of the machine, not of the sensor.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from harken.core.sentences import Sentence
from harken.monitor.verdict import Verdict
from harken.service.feed import SourceStatus
from harken.service.records import HeardWindow, Message

SensorStatus = Literal["good", "maintenance required", "out of specification", "check function", "failure"]

#: from good to bad
STATUSES: tuple[SensorStatus, ...] = (
    "good", "maintenance required", "out of specification", "check function", "failure"
)  # fmt: skip
#: those that are not good, in words
_WORDS: dict[SensorStatus, Sentence] = {
    "maintenance required": Sentence("maintenance required"),
    "out of specification": Sentence("out of specification"),
    "check function": Sentence("check function"),
    "failure": Sentence("failure"),
}
#: windows in a row until a status gets worse, or better
WORSE, BETTER = 2, 3
#: the same for concerns: a loud machine clips now and then
CONCERNED = 6


@dataclass(frozen=True)
class SensorState:
    """status: of the sensor, since a time, for a reason. off: whether the machine is off, or is not heard."""

    status: SensorStatus = "good"
    since: datetime | None = None
    reason: str = ""
    off: bool = False

    @property
    def trusted(self) -> bool:
        """Whether windows say anything about the machine: good, or in need of maintenance."""
        return STATUSES.index(self.status) <= 1


@dataclass(frozen=True)
class SensorChange:
    """Another state than before, at a time; where only the reason is another one, `sentence` is empty."""

    before: SensorState
    state: SensorState
    time: datetime

    @property
    def sentence(self) -> str:
        """For people."""
        now = self.state
        sentences = []
        if now.status != self.before.status:
            reason = f": {now.reason}" if now.reason else ""
            sentences.append(f"The sensor is good again, after {self.before.status}." if now.status == "good"
                             else f"Sensor: {now.status}{reason}.")  # fmt: skip
            if now.trusted != self.before.trusted:
                sentences.append("The machine is monitored again." if now.trusted else "The machine is not monitored.")
        if now.off != self.before.off:
            sentences.append(
                f"The machine is off, or is not heard: {now.reason}." if now.off else "The machine is heard again."
            )
        return " ".join(sentences)

    def message(self, machine: str) -> Message:
        """For sinks."""
        payload: dict[str, Any] = {
            "status": self.state.status,
            "before": self.before.status,
            "active": self.state.status != "good",
            "off": self.state.off,
            "reason": self.state.reason,
            "sentence": self.sentence,
        }
        return Message(uuid.uuid4().hex, 0, "sensor", machine, self.time, payload)


class SensorWatch:
    """Follows the sensor of one machine. Threads may share it.

    A status gets worse after `WORSE` windows in a row, better after `BETTER`. state: of an earlier run.
    """

    def __init__(self, state: SensorState = SensorState()) -> None:
        self.state = state
        self._recent: deque[SensorStatus] = deque(maxlen=CONCERNED)
        self._off: deque[bool] = deque(maxlen=WORSE)
        self._checked = state.status == "check function"
        #: it is a failure since the source gives no sound
        self._silent = False
        #: time of the last change, of `off`, too
        self._latest: datetime | None = None
        self._lock = threading.Lock()

    @property
    def trusted(self) -> bool:
        """Whether windows say anything about the machine now."""
        return self.state.trusted

    def hear(self, heard: HeardWindow) -> SensorChange | None:
        """Count a window; what has changed with it, if anything."""
        with self._lock:
            status, reason, off = judged_sensor(heard.verdict)
            state = self.state
            self._off.append(off)
            if len(self._off) == WORSE and len(set(self._off)) == 1 and off != state.off:
                state = replace(state, off=off, reason=reason if off else state.reason)
            if status is not None:
                self._recent.append(status)
                chosen = self._chosen(state.status)
                if chosen != state.status:
                    state = replace(state, status=chosen, reason="" if chosen == "good" else reason or state.reason)
            return self._become(state, heard.window.end)

    def source(self, status: SourceStatus, time: datetime | None = None) -> SensorChange | None:
        """The source has changed: one that gives no sound is a failure at once; sound shows when it is good again."""
        with self._lock:
            if status.state not in ("waiting", "silent", "failed"):
                return None
            self._recent.clear()
            if self._checked:
                return None
            reason = Sentence("gives no sound")
            error, failures = status.error, status.failures
            if error.endswith("."):
                error = error.rstrip(".")
            if error:
                reason = Sentence("gives no sound: {error}", error=error)
            if error and failures > 1:
                reason = Sentence("has failed {count} times in a row: {error}", count=failures, error=error)
            state = self.state
            if state.status != "failure":
                self._silent = True
                return self._become(replace(state, status="failure", reason=reason), time or datetime.now(UTC))
            if not self._silent or state.since is None or failures < 2 or failures & (failures - 1):
                return None
            # Renewed now and then in the status; no message is sent.
            self.state = replace(state, reason=reason)
            return SensorChange(state, self.state, state.since)

    def check(self, on: bool, reason: str = "", time: datetime | None = None) -> SensorChange | None:
        """Somebody begins to work on the sensor, or has ended; afterwards it is good as soon as it sounds good."""
        with self._lock:
            self._checked = on
            self._recent.clear()
            state = self.state
            if on:
                state = replace(state, status="check function", reason=reason)
            return self._become(state, time or datetime.now(UTC))

    def guarded(self, heard: HeardWindow) -> HeardWindow:
        """The window as it counts for the machine: not judged while the sensor cannot be trusted."""
        if self.trusted or heard.verdict.kind == "not judged":
            return heard
        status = _WORDS.get(self.state.status, self.state.status)
        reason = Sentence("the sensor is not good ({status}: {reason})", status=status, reason=self.state.reason)
        return replace(heard, verdict=replace(heard.verdict, kind="not judged", not_judged=reason, unheard="sensor"))

    def _chosen(self, now: SensorStatus) -> SensorStatus:
        """The status that the last windows support."""
        if self._checked:
            return "check function"
        ranks, rank = [STATUSES.index(status) for status in self._recent], STATUSES.index(now)
        worst = min(ranks[-WORSE:])
        if len(ranks) >= WORSE and worst > max(rank, 1):
            return STATUSES[worst]
        if rank == 0 and len(ranks) == CONCERNED and min(ranks) >= 1:
            return "maintenance required"
        needed = CONCERNED if rank == 1 else BETTER
        best = max(ranks[-needed:])
        return STATUSES[best] if len(ranks) >= needed and best < rank else now

    def _become(self, state: SensorState, time: datetime) -> SensorChange | None:
        before = self.state
        if (state.status, state.off) == (before.status, before.off):
            return None
        self._silent &= state.status == "failure"
        latest = max(filter(None, (before.since, self._latest)), default=None)
        if latest is not None:
            # Also where the clock is set back, or a window ends later than it is now: the last one is the latest.
            time = max(time, latest + timedelta(microseconds=1))
        self._latest = time
        if state.status != before.status or before.since is None:
            state = replace(state, since=time)
        self.state = state
        return SensorChange(before, state, time)


def judged_sensor(verdict: Verdict) -> tuple[SensorStatus | None, str, bool]:
    """Status that one verdict supports (None: it says nothing of the sensor), why, and whether the machine is off."""
    if verdict.error is not None:
        return "failure", verdict.error.cause, False
    reason = verdict.not_judged or ""
    match verdict.unheard:
        case "off":
            return None, reason, True
        case "short":
            return None, reason, False
        case "level":
            return "out of specification", reason, False
        case "sensor":
            return "failure", reason, False
    if verdict.concerns:
        return "maintenance required", verdict.concerns[0], False
    return "good", "", False

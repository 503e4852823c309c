"""One machine while the monitor runs: a thread that judges its sound and records what follows."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from harken.core.errors import HarkenError
from harken.monitor.detector import Detector
from harken.service.assembly import LoadedModel
from harken.service.changes import Changes, ModelInUse, SensorRecord
from harken.service.configuration.model import MonitoredEntry
from harken.service.episode_rule import EpisodeRule
from harken.service.feed import SourceStatus
from harken.service.listener import MachineListener
from harken.service.machine_alarm import MachineAlarm
from harken.service.model_versions import MachineVersion
from harken.service.recent_sound import RecentSound
from harken.service.records import HeardWindow
from harken.service.requests import Request
from harken.service.sensor import STATUSES, SensorChange, SensorState, SensorWatch

log = logging.getLogger(__name__)

#: seconds for which a thread waits for sound before it shows that it is alive, and after an error
_LOOK_S, _ERROR_S = 5.0, 0.5


@dataclass(frozen=True, eq=False)
class ModelSwap:
    """A model that a machine is to be judged with from the next window on.

    answer: what it is, for people. versions: of it. request: of the person who asked for it on this machine.
    """

    model: LoadedModel
    answer: str
    versions: list[MachineVersion]
    request: Request | None = None


class MachineRunner:
    """Judges one machine.

    alarm: of the machine; stores each window together with where its source can be taken up again, so that both are
    there or neither. sensor: status of an earlier run. recent: keeps recent sound. heard: called with each window that
    was stored. continuous: see `rule_of`.
    """

    def __init__(
        self,
        name: str,
        entry: MonitoredEntry,
        model: LoadedModel,
        listener: MachineListener,
        *,
        alarm: MachineAlarm,
        commit: Callable[[Changes], object],
        sensor: SensorRecord | None = None,
        recent: RecentSound | None = None,
        heard: Callable[[HeardWindow], None] = lambda heard: None,
        continuous: bool = False,
    ) -> None:
        self.name, self.entry, self.model, self.listener, self.alarm = name, entry, model, listener, alarm
        self._commit, self._heard, self._continuous = commit, heard, continuous
        self._swaps: deque[ModelSwap] = deque()
        self._swapping = threading.Lock()
        self.sensor = SensorWatch() if sensor is None else SensorWatch(sensor_state(sensor))
        self._recent = recent
        self._stopping = threading.Event()
        self._drain_until = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"machine {name}", daemon=True)
        #: on the monotonic clock: when its thread last came round
        self.alive_s = time.monotonic()

    def start(self) -> None:
        """Begin to judge."""
        rule = self.alarm.rule
        for sentence in rule.sentences():
            log.info("machine %s: %s", self.name, sentence)
        self._commit(Changes(models=[self._in_use()]))
        if not self.sensor.trusted:
            self.alarm.sensor(False, datetime.now(UTC), self.sensor.state.reason)
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
        """Whether its thread runs, and did not come round for so many seconds, unless it waits for a verdict: that is
        for those who judge to know. now: on the monotonic clock."""
        return self._thread.is_alive() and not self.listener.judging and now - self.alive_s > after_s

    # ---- its model ---------------------------------------------------------------------------------------

    def use(self, swap: ModelSwap) -> None:
        """Be judged with another model from the next window on; from any thread."""
        self._swaps.append(swap)
        self.listener.tap.wake()
        if not self._thread.is_alive():
            self._swap()

    def rule_for(self, detector: Detector) -> EpisodeRule:
        """When it would sound abnormal with a model."""
        return rule_of(self.entry, detector, continuous=self._continuous)

    def _swap(self) -> None:
        """Take models into use that wait for it: between two windows."""
        with self._swapping:
            while self._swaps:
                swap = self._swaps.popleft()
                self.model = swap.model
                self.listener.judge.use(swap.model.detector, swap.model.digest)
                rule = self.rule_for(swap.model.detector)
                changes = Changes(models=[self._in_use(rule)], versions=swap.versions)
                self.alarm.use(rule, swap.model, swap.answer, swap.request, changes)

    def _in_use(self, rule: EpisodeRule | None = None) -> ModelInUse:
        rule = self.alarm.rule if rule is None else rule
        threshold, sentences = rule.setting.threshold, rule.sentences()
        path, digest = str(self.entry.model), self.model.digest
        return ModelInUse(self.name, digest, path, datetime.now(UTC), threshold, sentences)

    # ---- its sound ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self.listener.finished and time.monotonic() < self._drain_until:
            self.alive_s = time.monotonic()
            try:
                self._swap()
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
                time.sleep(_ERROR_S)

    def _record(self, heard: HeardWindow) -> None:
        change = self.sensor.hear(heard)
        if change is not None:
            self._note_sensor(change)
        guarded = self.sensor.guarded(heard)
        changes = Changes()
        if self._recent is not None:
            self._recent.hear(guarded, changes)
        self.alarm.hear(guarded, changes)
        self._heard(guarded)

    def source_changed(self, status: SourceStatus) -> None:
        """Its source is in another state."""
        change = self.sensor.source(status)
        if change is not None:
            self._note_sensor(change)

    def _note_sensor(self, change: SensorChange) -> None:
        """Record a change of the sensor, and hide the alarm while it cannot be trusted."""
        state = change.state
        status = "off" if state.off and state.status == "good" else state.status
        changes = Changes(sensors=[SensorRecord(self.name, status, change.time, state.reason)])
        if not change.sentence:
            self.alarm.sensor(state.trusted, change.time, state.reason, changes)
            return
        changes.messages = [change.message(self.name)]
        log.log(
            logging.INFO if state.trusted else logging.WARNING, "machine %s: %s", self.name, change.sentence,
        )  # fmt: skip
        self.alarm.sensor(state.trusted, change.time, state.reason, changes)


def sensor_state(record: SensorRecord) -> SensorState:
    """The state of a sensor that was stored."""
    if record.status == "off":
        return SensorState("good", record.since, record.reason, off=True)
    status = next((status for status in STATUSES if status == record.status), STATUSES[0])
    return SensorState(status, record.since, record.reason)


def rule_of(entry: MonitoredEntry, detector: Detector, *, continuous: bool) -> EpisodeRule:
    """When the machine sounds abnormal. continuous: windows are cut from sound without gaps; otherwise recordings begin
    so often as those that the model learned from. Raises HarkenError for a rate that cannot be."""
    usual_s = detector.segment_s if continuous else detector.alarm.interval_s
    interval_s = usual_s if entry.hop_s is None else entry.hop_s
    return EpisodeRule.of(detector, entry.false_alarms, interval_s, entry.on_delay_s, entry.off_delay_s)

"""The alarm of one machine: its windows, what people ask, and its sensor become states, messages and evidence."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from harken.core.sentences import Sentence
from harken.monitor.detector import Detector
from harken.service.alarm_evidence import AlarmEvidence
from harken.service.alarm_messages import alarm_message
from harken.service.alarm_requests import event_of
from harken.service.alarm_state import (
    Acknowledge,
    Action,
    AlarmState,
    Announcement,
    Clear,
    Event,
    Raise,
    Suppress,
    Tick,
    step,
)
from harken.service.askers import EFFECTS, Askers, without_effect
from harken.service.assembly import LoadedModel
from harken.service.changes import AlarmRecord, Changes, HistoryEntry, WindowScore
from harken.service.episode_rule import EpisodeMemory, EpisodeRule
from harken.service.evidence import EvidenceFolder
from harken.service.kept_features import WindowFeatures
from harken.service.recorder import Recorder
from harken.service.records import HeardWindow
from harken.service.requests import Request

log = logging.getLogger(__name__)

#: windows before the onset of an alarm whose features are kept as long as its own
_AROUND_WINDOWS = 10


class MachineAlarm:
    """The alarm of one machine. Threads may share it: what belongs together is computed and stored under one lock.

    rule: when the machine sounds abnormal. model: digest of the detector; evidence of another model counts no more.
    recorder: whose memory of an earlier run is taken up, as soon as its store can be reached. commit: stores changes;
    None: the recorder's. evidence, detector: keep sound and pictures of alarms.
    """

    def __init__(
        self,
        machine: str,
        rule: EpisodeRule,
        model: str,
        recorder: Recorder,
        *,
        commit: Callable[[Changes], object] | None = None,
        evidence: EvidenceFolder | None = None,
        detector: Detector | None = None,
    ) -> None:
        self.machine, self.rule, self.model = machine, rule, model
        self.state = AlarmState()
        #: of the alarm that is on, or was last on
        self.record: AlarmRecord | None = None
        self._memory = EpisodeMemory()
        #: alarm of which it was said that it is a lasting change
        self._lasting = ""
        self._recorder = recorder
        self._evidence = AlarmEvidence(evidence, detector)
        self._askers = Askers()
        self._commit = recorder.commit if commit is None else commit
        self._taken_up = False
        self._lock = threading.RLock()

    # ---- what happens ------------------------------------------------------------------------------------

    def hear(self, heard: HeardWindow, changes: Changes | None = None) -> None:
        """Count a window, and store all that follows from it, with where its source can be taken up again.

        changes: what else is to be stored in the same transaction.
        """
        with self._lock:
            changes = self._begin(changes)
            window, verdict = heard.window, heard.verdict
            before = self._memory
            event: Event = Tick(window.end)
            judged = verdict.kind != "not judged" and verdict.score is not None
            if judged and verdict.scores is not None:
                self._memory = self.rule.hear(before, window.start, verdict.scores)
                if not self.state.on:
                    self._evidence.consider(heard, builds_up=self._builds_up)
            if self._memory.on and not before.on:
                event = Raise(window.end, uuid.uuid4().hex[:12])
                around = timedelta(seconds=_AROUND_WINDOWS * self.rule.setting.interval_s)
                changes.notable[self.machine] = (self._memory.onset or window.start) - around
            elif before.on and not self._memory.on:
                event = Clear(window.end)
            self._apply(event, changes, heard=heard)
            if self.state.on and judged:
                self._count(heard, changes)
                self._note_lasting(window.end, changes)
            alarm = self.state.alarm if self.state.on else ""
            changes.windows.append(WindowScore.of(heard, alarm))
            if (kept := WindowFeatures.of(heard, alarm, notable=self._builds_up)) is not None:
                changes.features.append(kept)
            changes.resume |= window.resume
            self._store(changes)

    def sensor(self, good: bool, time: datetime, reason: str = "", changes: Changes | None = None) -> None:
        """The sensor is good, or not, which hides the alarm."""
        with self._lock:
            changes = self._begin(changes, suppressed=not good)
            if self._apply(Suppress(time, not good), changes, text=reason) or not changes.empty:
                self._store(changes)

    def tick(self, time: datetime) -> None:
        """Time goes by: shelving ends also where nothing is heard."""
        with self._lock:
            changes = self._begin()
            if self._apply(Tick(time), changes) or not changes.empty:
                self._store(changes)

    def answer(self, request: Request) -> str:
        """Do what somebody asks for, and store it with the answer, which is returned."""
        with self._lock:
            changes = self._begin()
            event, answer = event_of(request)
            before = self.state
            if event is None:
                pass
            elif EFFECTS[request.demand] in self._apply(event, changes, who=request.who, text=request.text):
                answer = self._askers.answer(request, answer)
                self._askers.note(request)
            else:
                answer, entry = without_effect(request, self._askers.first(request, before))
                if entry is not None:
                    changes.history.append(replace(entry, alarm=before.alarm))
            if request.number:
                changes.requests_done[request.number] = answer
            self._store(changes)
            return answer

    def refuse(self, request: Request, answer: str) -> None:
        """Store why something is not done."""
        with self._lock:
            self._store(self._begin(Changes(requests_done={request.number: answer})))

    def use(
        self, rule: EpisodeRule, model: LoadedModel, answer: str, request: Request | None, changes: Changes
    ) -> None:
        """Go on with another version of the model. What was gathered by the one before counts no more; an alarm that is
        on ends when enough windows in a row are quiet.

        answer: what is new. request: of who asked for it; who says what an alarm is has seen it.
        """
        with self._lock:
            changes = self._begin(changes)
            self.rule, self.model = rule, model.digest
            self._evidence.use(model.detector)
            self._memory = _anew(self._memory, rule)
            time, who, text, alarm = datetime.now(UTC), "", "", ""
            if request is not None:
                time, who, text, alarm = request.time, request.who, request.text, request.alarm
                if request.demand in ("normal", "fault") and alarm in ("", self.state.alarm):
                    self._apply(Acknowledge(time), changes, who=who, text=text)
                changes.requests_done[request.number] = answer
            changes.history.append(HistoryEntry(self.machine, time, answer, who, text, alarm))
            self._store(changes)

    # ---- what follows ------------------------------------------------------------------------------------

    def _apply(
        self, event: Event, changes: Changes, *, heard: HeardWindow | None = None, who: str = "", text: str = ""
    ) -> list[Action]:
        """One step of the state; what has happened."""
        self.state, announcements = step(self.state, event)
        for announcement in announcements:
            self._note(announcement, changes, heard, who, text)
        return [announcement.action for announcement in announcements]

    def _note(self, said: Announcement, changes: Changes, heard: HeardWindow | None, who: str, text: str) -> None:
        """The record, the history and the message of an announcement."""
        if said.action in ("raised", "noted") and (self.record is None or self.record.id != said.alarm):
            onset = self._memory.onset or said.time
            record = AlarmRecord(said.alarm, self.machine, "unacknowledged", onset, said.time)
            self.record = self._evidence.begin(record, heard, changes)
        if self.record is not None and said.alarm == self.record.id:
            state, record = said.state, self.record
            lasts = state.alarm == record.id
            self.record = record = replace(
                record,
                phase=state.phase if lasts else "normal",
                ended=None if lasts and state.on else record.ended or said.time,
                annunciated=state.annunciated if lasts else record.annunciated,
            )
            if said.action == "acknowledged":
                self.record = record = replace(record, acknowledged=said.time, acknowledged_by=who)
            changes.alarms[record.id] = record
        changes.history.append(HistoryEntry(self.machine, said.time, said.action, who, text, said.alarm))
        files = self._evidence.files(said.alarm, changes)
        changes.messages.append(
            alarm_message(
                self.machine, said, self.record, who=who, text=text, files=files, lasting=self._memory.evidence.alarm
            )
        )

    def _note_lasting(self, time: datetime, changes: Changes) -> None:
        """Once per alarm: that its windows together show a lasting change, and what that may be."""
        if not self._memory.evidence.alarm or self._lasting == self.state.alarm or self.record is None:
            return
        self._lasting, alarm = self.state.alarm, self.state.alarm
        text = Sentence("since {time}", time=f"{self.record.onset:%Y-%m-%d %H:%M} UTC")
        changes.history.append(HistoryEntry(self.machine, time, "lasting", "", text, alarm))
        # Whoever gets the message of the alarm now reads it there.
        raising = [each for each in changes.messages if each.payload.get("event") in ("raised", "noted")]
        if not any(each.machine == self.machine for each in raising):
            said = Announcement("lasting", time, alarm, self.state)
            changes.messages.append(alarm_message(self.machine, said, self.record, who="", text="", files=[]))

    @property
    def _builds_up(self) -> bool:
        """Whether there are signs that an alarm may follow."""
        return self._memory.evidence.value >= 1 or self._memory.ringing > 0

    def _count(self, heard: HeardWindow, changes: Changes) -> None:
        """A window of the alarm that is on."""
        if self.record is None:
            return
        record, score = self._evidence.hear(self.record, heard, changes), heard.verdict.score or 0.0
        highest = score if record.highest is None else max(record.highest, score)
        sentence = record.sentence or heard.verdict.why or ""
        self.record = replace(record, windows=record.windows + 1, highest=highest, sentence=sentence)
        changes.alarms[record.id] = self.record

    # ---- memory ------------------------------------------------------------------------------------------

    def _store(self, changes: Changes) -> None:
        changes.states[self.machine] = self.to_json()
        changes.evidence_gone += self._evidence.take_gone()
        self._commit(changes)

    def to_json(self) -> dict[str, Any]:
        """All that is needed to go on, JSON-able. `display` is the state in words."""
        record = None
        if self.record is not None and self.state.alarm == self.record.id:
            record = self.record.to_json()
        return {
            "display": self.state.display,
            "model": self.model,
            "state": self.state.to_json(),
            "memory": self._memory.to_json(),
            "lasting": self._lasting,
            "record": record,
            "kept": self._evidence.count,
            "askers": self._askers.to_json(),
        }

    def _begin(self, changes: Changes | None = None, *, suppressed: bool = False) -> Changes:
        """Take up what an earlier run stored, once it can be read. suppressed: the sensor is not good, as before."""
        changes = Changes() if changes is None else changes
        if not self._taken_up and (stored := self._recorder.loaded()) is not None:
            self._taken_up = True
            if (values := stored.states.get(self.machine)) is not None:
                try:
                    self._take_up(values, changes, suppressed)
                except (ValueError, KeyError, TypeError) as error:
                    log.error(
                        "machine %s: its stored state is not understood, and begins anew: %s", self.machine, error
                    )
        return changes

    def _take_up(self, values: Mapping[str, Any], changes: Changes, suppressed: bool) -> None:
        state, memory = AlarmState.from_json(values["state"]), EpisodeMemory.from_json(values["memory"])
        record = None if values.get("record") is None else AlarmRecord.from_json(values["record"])
        self._askers = Askers.from_json(values.get("askers", {}))
        self._lasting = str(values.get("lasting", ""))
        if values["model"] != self.model:
            memory = _anew(memory, self.rule)
        if not self.state.alarm:
            # The windows heard before the store was reached are few, but those of the present.
            if self._memory.evidence.clips == 0 or state.on:
                self._memory = memory
            # Whether the sensor is good now, its own watch knows.
            suppressed = self.state.suppressed or (suppressed and state.suppressed)
            self.state, self.record, self._evidence.count = state, record, int(values.get("kept", 0))
            self.state = replace(self.state, suppressed=suppressed)
            return
        # An alarm has gone out meanwhile under another id; hiding counts, and the older alarm ends.
        self.state = replace(self.state, shelved_until=state.shelved_until, out_of_service=state.out_of_service)
        if record is not None and self.state.raised is not None:
            text = Sentence("went on as {alarm} while the store could not be reached", alarm=self.state.alarm)
            changes.alarms[record.id] = replace(record, phase="normal", ended=self.state.raised)
            changes.history.append(HistoryEntry(self.machine, self.state.raised, "closed", "", text, record.id))


def _anew(memory: EpisodeMemory, rule: EpisodeRule) -> EpisodeMemory:
    """As after another model: whether the machine sounds abnormal is known, all else begins."""
    return EpisodeMemory(on=memory.on, onset=memory.onset, quiet_needed=rule.off_windows)

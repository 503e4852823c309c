"""Which windows of an alarm are kept as its evidence: the one that stood out while it built up, and louder ones."""

from __future__ import annotations

from dataclasses import replace

from harken.monitor.detector import Detector
from harken.service.changes import AlarmRecord, Changes
from harken.service.evidence import EvidenceFolder
from harken.service.records import HeardWindow

#: evidence of one alarm: its first, and louder ones, each by this factor
_MOST, _LOUDER = 5, 1.1
#: windows of a smaller p-value are kept in memory in case an alarm follows
_CANDIDATE_P = 0.05


class AlarmEvidence:
    """Of one machine. folder: where it is kept; None: nowhere. detector: draws its pictures.

    count: windows that were kept of the alarm that is on.
    """

    def __init__(self, folder: EvidenceFolder | None, detector: Detector | None) -> None:
        self.count = 0
        self._folder, self._detector = folder, detector
        self._candidate: HeardWindow | None = None

    def use(self, detector: Detector) -> None:
        """Draw pictures with another version of the model; scores of the one before cannot be compared with its own."""
        self._detector, self._candidate = detector, None

    def consider(self, heard: HeardWindow, *, builds_up: bool) -> None:
        """A judged window while no alarm is on. builds_up: whether evidence was there before; sound is large."""
        if not builds_up:
            self._candidate = None
        if self._folder is None or (heard.verdict.p_value or 0.0) > _CANDIDATE_P:
            return
        best = self._candidate
        if best is None or (heard.verdict.score or 0.0) > (best.verdict.score or 0.0):
            self._candidate = heard

    def begin(self, record: AlarmRecord, heard: HeardWindow | None, changes: Changes) -> AlarmRecord:
        """Keep the first evidence of an alarm that `heard` has raised; its record with it."""
        self.count, candidate = 0, self._candidate
        self._candidate = None
        return record if heard is None else self._keep(record, candidate or heard, changes)

    def hear(self, record: AlarmRecord, heard: HeardWindow, changes: Changes) -> AlarmRecord:
        """A judged window of the alarm that is on: kept if it is louder than those before; its record with it."""
        score = heard.verdict.score or 0.0
        if record.highest is None or score <= _LOUDER * record.highest or self.count >= _MOST:
            return record
        return self._keep(record, heard, changes)

    def files(self, alarm: str, changes: Changes) -> list[str]:
        """Paths of what `changes` say was kept of an alarm."""
        if self._folder is None:
            return []
        return [path for kept in changes.evidence if kept.alarm == alarm for path in self._folder.files(kept)]

    def take_gone(self) -> list[str]:
        """Ids of the evidence of any machine that was removed since the last call."""
        return [] if self._folder is None else self._folder.take_gone()

    def _keep(self, record: AlarmRecord, heard: HeardWindow, changes: Changes) -> AlarmRecord:
        self.count += 1
        record = replace(record, sentence=heard.verdict.why or record.sentence)
        kept = None if self._folder is None else self._folder.save(heard, record.id, self._detector)
        if kept is None:
            return record
        changes.evidence.append(kept)
        return replace(record, evidence=kept.id)

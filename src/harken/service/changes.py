"""What the parts of the running monitor have stored: what belongs to a window is one `Changes`, stored at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from harken.monitor.verdict import Kind
from harken.service.kept_features import WindowFeatures
from harken.service.model_versions import MachineVersion
from harken.service.records import HeardWindow, Message


@dataclass(frozen=True)
class WindowScore:
    """The judgement of a window, without its sound.

    number, position: see `Window`; number is unique per machine. alarm: id of the alarm that was on, empty for none.
    reason: why it is not judged, empty if it is. model: digest.
    """

    machine: str
    number: int
    position: int
    start: datetime
    end: datetime
    kind: Kind
    score: float | None
    event_score: float | None
    p_value: float | None
    model: str
    reason: str = ""
    alarm: str = ""

    @classmethod
    def of(cls, heard: HeardWindow, alarm: str = "") -> WindowScore:
        """Of a window that was heard."""
        window, verdict = heard.window, heard.verdict
        return cls(
            machine=heard.machine,
            number=window.number,
            position=window.position,
            start=window.start,
            end=window.end,
            kind=verdict.kind,
            score=verdict.score,
            event_score=verdict.event_score,
            p_value=verdict.p_value,
            model=heard.model,
            reason=(verdict.error.cause if verdict.error is not None else verdict.not_judged) or "",
            alarm=alarm,
        )


@dataclass(frozen=True)
class SensorRecord:
    """Status of a sensor since a time: NAMUR NE 107, or `off`; the words are those of the sensor's watch."""

    sensor: str
    status: str
    since: datetime
    reason: str = ""


#: of an alarm; see `harken.service.alarm_state`
Phase = Literal["normal", "unacknowledged", "acknowledged", "returned"]


@dataclass(frozen=True)
class AlarmRecord:
    """An alarm as it stands.

    onset: time since which the machine most likely sounds different; raised: of the alarm; ended: of the return to
    normal, None while it lasts. phase `normal`: over and acknowledged. windows: judged while it was on, with the
    highest score among them. sentence: what differs. evidence: id of the best `EvidenceRecord`, empty for none.
    """

    id: str
    machine: str
    phase: Phase
    onset: datetime
    raised: datetime
    ended: datetime | None = None
    acknowledged: datetime | None = None
    acknowledged_by: str = ""
    annunciated: bool = True
    windows: int = 0
    highest: float | None = None
    sentence: str = ""
    evidence: str = ""

    def to_json(self) -> dict[str, Any]:
        """Fields by name, times in ISO 8601."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AlarmRecord:
        """Inverse of `to_json`. Raises ValueError, KeyError and TypeError for other values."""
        names = ("onset", "raised", "ended", "acknowledged")
        return cls(**{**values, **{name: values[name] and datetime.fromisoformat(values[name]) for name in names}})


@dataclass(frozen=True)
class HistoryEntry:
    """Who did what and when, of a machine. who: empty for the monitor. alarm: id, empty for none."""

    machine: str
    time: datetime
    action: str
    who: str = ""
    text: str = ""
    alarm: str = ""


@dataclass(frozen=True)
class EvidenceRecord:
    """Sound and picture of a window of an alarm. sound, picture: names of files in the evidence folder, empty for none.

    size: bytes of both. score: of the window. kind: of sound that belongs to no alarm, `live` the last window that was
    heard, `normal` one that is as normal recordings.
    """

    id: str
    machine: str
    alarm: str
    time: datetime
    size: int
    sound: str = ""
    picture: str = ""
    sentence: str = ""
    score: float | None = None
    kind: Literal["alarm", "live", "normal"] = "alarm"


@dataclass(frozen=True)
class ModelInUse:
    """A model that judges a machine since a time. digest: see `HeardWindow`. path: as configured.

    threshold: score above which a single window is an alarm. sentences: what its limits are worth, for people.
    """

    machine: str
    digest: str
    path: str
    since: datetime
    threshold: float | None = None
    sentences: list[str] = field(default_factory=list)


@dataclass
class Changes:
    """All that is stored in one transaction.

    notable: per machine, the time since which features of windows are notable. states: per machine, JSON-able memory of
    its alarms. resume: tokens by key, to take sources up again; an empty one forgets its key (`Window.resume`). alarms:
    by id, the last state counts. evidence_gone: ids of evidence whose files are removed. versions: of models, all of
    each machine that there is one of. requests_done: answers by number of the request (see `Request`). messages have
    number 0; they are numbered when they are recorded.
    """

    windows: list[WindowScore] = field(default_factory=list)
    features: list[WindowFeatures] = field(default_factory=list)
    notable: dict[str, datetime] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    resume: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    sensors: list[SensorRecord] = field(default_factory=list)
    alarms: dict[str, AlarmRecord] = field(default_factory=dict)
    history: list[HistoryEntry] = field(default_factory=list)
    evidence: list[EvidenceRecord] = field(default_factory=list)
    evidence_gone: list[str] = field(default_factory=list)
    models: list[ModelInUse] = field(default_factory=list)
    versions: list[MachineVersion] = field(default_factory=list)
    requests_done: dict[int, str] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to store."""
        return not any(getattr(self, each.name) for each in fields(self))

    def add(self, later: Changes) -> None:
        """Append what came later."""
        self.windows += later.windows
        self.features += later.features
        self.notable = later.notable | self.notable
        self.states |= later.states
        self.resume |= later.resume
        self.sensors += later.sensors
        self.alarms |= later.alarms
        self.history += later.history
        self.evidence += later.evidence
        self.evidence_gone += later.evidence_gone
        self.models += later.models
        renewed = {version.machine for version in later.versions}
        self.versions = [each for each in self.versions if each.machine not in renewed] + later.versions
        self.requests_done |= later.requests_done
        self.messages += later.messages

"""What programs send and get."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from harken.page import actions
from harken.page.machines import MachineView
from harken.service.changes import AlarmRecord
from harken.service.model_versions import MachineVersion
from harken.service.requests import Demand


class StoreHealth(BaseModel):
    """Whether the page can read its store."""

    healthy: bool


class Alarm(BaseModel):
    """An alarm; see ISA-18.2 for its phases."""

    id: str
    machine: str
    phase: Literal["normal", "unacknowledged", "acknowledged", "returned"]
    onset: datetime
    raised: datetime
    ended: datetime | None
    acknowledged: datetime | None
    acknowledged_by: str
    windows: int
    highest: float | None
    sentence: str
    evidence: str

    @classmethod
    def of(cls, record: AlarmRecord) -> Alarm:
        """Without what is for the monitor alone."""
        return cls(**{name: getattr(record, name) for name in cls.model_fields})


class MachineState(BaseModel):
    """The state of a machine. key: stands for it in addresses."""

    key: str
    monitor: str
    machine: str
    state: str
    since: datetime | None
    until: datetime | None
    reason: str
    sensor: str
    heard: datetime | None
    score: float | None
    p_value: float | None
    limit: float | None
    model: str | None
    alarm: Alarm | None

    @classmethod
    def of(cls, view: MachineView) -> MachineState:
        """As the first page shows it."""
        last, model = view.last, view.model
        return cls(
            key=view.key, monitor=view.monitor, machine=view.machine, state=view.state, since=view.since,
            until=view.until, reason=view.reason, sensor=view.status, heard=last.end if last is not None else None,
            score=last.score if last is not None else None, p_value=last.p_value if last is not None else None,
            limit=view.limit, model=model.digest if model is not None else None,
            alarm=Alarm.of(view.alarm) if view.alarm is not None else None,
        )  # fmt: skip


class CountedAlarms(BaseModel):
    """What a version would have said of the `windows` that are kept since a time: so many above the limit, so many
    alarms."""

    since: datetime
    windows: int
    crossings: int
    alarms: int


class VersionOfModel(BaseModel):
    """A version of the model of a machine. target: the version that it went back to. counted: null where it was not."""

    number: int
    kind: str
    who: str
    made: datetime | None
    why: str
    target: int | None
    recordings: int
    added: int
    forced: bool
    in_use: bool
    counted: CountedAlarms | None

    @classmethod
    def of(cls, version: MachineVersion) -> VersionOfModel:
        """As the store has it."""
        return cls.model_validate({name: value for name, value in version.to_json().items() if name != "machine"})


class ScoresOverTime(BaseModel):
    """Scores in equal periods, null where nothing was judged. time: beginning of each, seconds since 1970, UTC."""

    model_config = ConfigDict(populate_by_name=True)
    seconds: float
    begin: float = Field(alias="from")
    until: float
    time: list[float]
    minimum: list[float | None]
    mean: list[float | None]
    maximum: list[float | None]
    not_judged: list[int]


class Ask(BaseModel):
    """What is asked of the monitor. hours: of a shelving, and of that alone.

    normal, fault: the sound of an `alarm`, or from `since` to `until`, is normal, or a fault. rebaseline: that since
    then is what is normal. rollback: use the `version` again (without: that before the last change). These need `who`.
    force: learn it although the model is against it.
    """

    model_config = ConfigDict(extra="forbid")
    demand: Demand
    who: str = Field("", max_length=actions.LONGEST_NAME)
    text: str = Field("", max_length=actions.LONGEST_TEXT)
    hours: float | None = Field(None, gt=0, le=actions.MOST_HOURS, allow_inf_nan=False)
    alarm: str = Field("", max_length=64)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    version: int | None = Field(None, ge=1, lt=2**31)
    force: bool = False


class Asked(BaseModel):
    """A request to the monitor. answer: null until there is one."""

    number: int
    answer: str | None

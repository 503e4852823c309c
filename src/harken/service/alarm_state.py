"""States of an alarm and their transitions, as ISA-18.2 (IEC 62682) has them: a function without side effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from harken.service.changes import Phase

#: an alarm that nobody acknowledged and that comes back within this time is the same one
REJOINS = timedelta(hours=24)


@dataclass(frozen=True)
class AlarmState:
    """The alarm of one machine.

    phase: `normal`; `unacknowledged`; `acknowledged`; `returned` to normal, and not acknowledged.
    alarm: id of the alarm, empty in phase `normal`. raised, ended: its times. annunciated: whether people know of it.
    shelved_until: when shelving ends. out_of_service: until somebody puts it back. suppressed: the sensor is not good.
    These three hide the alarm, whatever its phase: nothing new is annunciated until all of them have ended.
    """

    phase: Phase = "normal"
    alarm: str = ""
    raised: datetime | None = None
    ended: datetime | None = None
    annunciated: bool = False
    shelved_until: datetime | None = None
    out_of_service: bool = False
    suppressed: bool = False

    @property
    def hidden(self) -> bool:
        """Whether nothing is annunciated now."""
        return self.shelved_until is not None or self.out_of_service or self.suppressed

    @property
    def on(self) -> bool:
        """Whether the machine sounds abnormal now."""
        return self.phase in ("unacknowledged", "acknowledged")

    @property
    def display(self) -> str:
        """The state in a word or three, that which hides the alarm before its phase."""
        if self.out_of_service:
            return "out of service"
        if self.shelved_until is not None:
            return "shelved"
        return "suppressed" if self.suppressed else self.phase

    def to_json(self) -> dict[str, Any]:
        """Fields by name, times in ISO 8601."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AlarmState:
        """Inverse of `to_json`; unknown fields, of later releases, are ignored."""
        taken = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        for name in ("raised", "ended", "shelved_until"):
            if taken.get(name) is not None:
                taken[name] = datetime.fromisoformat(taken[name])
        return cls(**taken)


@dataclass(frozen=True)
class Raise:
    """The machine sounds abnormal. alarm: id of the alarm if it is a new one."""

    time: datetime
    alarm: str


@dataclass(frozen=True)
class Clear:
    """The machine sounds normal again."""

    time: datetime


@dataclass(frozen=True)
class Acknowledge:
    """Somebody knows."""

    time: datetime


@dataclass(frozen=True)
class Shelve:
    """Nothing is annunciated for a time."""

    time: datetime
    until: datetime


@dataclass(frozen=True)
class Unshelve:
    """Shelving ends now."""

    time: datetime


@dataclass(frozen=True)
class Service:
    """The machine is taken out of service (out), or put back."""

    time: datetime
    out: bool


@dataclass(frozen=True)
class Suppress:
    """The sensor is not good (on), or good again."""

    time: datetime
    on: bool


@dataclass(frozen=True)
class Tick:
    """Time goes by."""

    time: datetime


Event = Raise | Clear | Acknowledge | Shelve | Unshelve | Service | Suppress | Tick

#: `raised` alone is an annunciation. `noted`: the machine sounds abnormal while the alarm is hidden. `closed`: an
#: alarm is over that was never annunciated, or is replaced by a new one. `lasting`: the windows of an alarm together
#: show a lasting change; no transition, and said once per alarm (`MachineAlarm`).
Action = Literal[
    "raised", "noted", "recurred", "lasting", "acknowledged", "returned", "closed", "shelved", "unshelved",
    "out of service", "in service", "suppressed", "unsuppressed"
]  # fmt: skip


@dataclass(frozen=True)
class Announcement:
    """What is to be said of a transition. alarm: id of the alarm, empty where there is none. state: after it."""

    action: Action
    time: datetime
    alarm: str
    state: AlarmState


def step(state: AlarmState, event: Event) -> tuple[AlarmState, list[Announcement]]:
    """The state after an event, and what is to be announced of it, in order.

    An event that changes nothing gives the same state and no announcement. One alarm, from `Raise` in phase `normal` to
    the next phase `normal`, is annunciated at most once, and as soon as it is not hidden; within `REJOINS` an alarm
    that has returned unacknowledged is raised again under its own id, without another annunciation.
    """
    announcements: list[Announcement] = []

    def to(new: AlarmState, action: Action, alarm: str | None = None) -> AlarmState:
        announcements.append(Announcement(action, event.time, new.alarm if alarm is None else alarm, new))
        return new

    if state.shelved_until is not None and event.time >= state.shelved_until:
        state = to(replace(state, shelved_until=None), "unshelved")
    match event:
        case Raise(time, alarm) if not state.on:
            if state.phase == "returned" and state.ended is not None and time - state.ended > REJOINS:
                state = to(_over(state), "closed", state.alarm)
            if state.phase == "returned":
                state = to(replace(state, phase="unacknowledged", ended=None), "recurred")
            else:
                state = replace(state, phase="unacknowledged", alarm=alarm, raised=time, ended=None, annunciated=False)
                if state.hidden:
                    state = to(state, "noted")
        case Clear(time) if state.phase == "acknowledged":
            state = to(_over(state), "returned", state.alarm)
        case Clear(time) if state.phase == "unacknowledged" and state.annunciated:
            state = to(replace(state, phase="returned", ended=time), "returned")
        case Clear(time) if state.phase == "unacknowledged":
            state = to(_over(state), "closed", state.alarm)
        case Acknowledge() if state.phase == "unacknowledged":
            state = to(replace(state, phase="acknowledged"), "acknowledged")
        case Acknowledge() if state.phase == "returned":
            state = to(_over(state), "acknowledged", state.alarm)
        case Shelve(time, until) if until > time and until != state.shelved_until:
            state = to(replace(state, shelved_until=until), "shelved")
        case Unshelve() if state.shelved_until is not None:
            state = to(replace(state, shelved_until=None), "unshelved")
        case Service(_, out) if out != state.out_of_service:
            state = to(replace(state, out_of_service=out), "out of service" if out else "in service")
        case Suppress(_, on) if on != state.suppressed:
            state = to(replace(state, suppressed=on), "suppressed" if on else "unsuppressed")
    if state.phase == "unacknowledged" and not state.annunciated and not state.hidden:
        state = to(replace(state, annunciated=True), "raised")
    return state, announcements


def _over(state: AlarmState) -> AlarmState:
    return replace(state, phase="normal", alarm="", raised=None, ended=None, annunciated=False)

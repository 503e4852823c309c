"""What people ask of a monitor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence

#: of the alarm of a machine
AlarmDemand = Literal["acknowledge", "shelve", "unshelve", "out of service", "in service"]
#: of its model
ModelDemand = Literal["normal", "fault", "rebaseline", "rollback"]
Demand = AlarmDemand | ModelDemand
MODEL_DEMANDS: tuple[ModelDemand, ...] = ("normal", "fault", "rebaseline", "rollback")


@dataclass(frozen=True)
class Request:
    """What somebody asks of the monitor of a machine, by command line or page.

    until: of a shelving. number: 0 until it is stored. time: of the request.
    normal, fault: the windows of an `alarm` (its id), or those that began in [since, until), were normal, or are a
    fault. rebaseline: what was heard in [since, until) is what is normal from now on. rollback: the model as it was in
    `version`, None: before its last change. force: although a check of the model is against it.
    """

    machine: str
    demand: Demand
    who: str
    time: datetime
    until: datetime | None = None
    text: str = ""
    number: int = 0
    alarm: str = ""
    since: datetime | None = None
    version: int | None = None
    force: bool = False


def check_request(request: Request) -> None:
    """Raise HarkenError for one that says not, or more than, what is asked."""
    demand, since, until = request.demand, request.since, request.until
    if demand in MODEL_DEMANDS and not request.who.strip():
        raise HarkenError(
            Sentence("a change of the model needs the name of who asks for it"), next_step=Sentence("Give your name")
        )
    if bool(until) != (demand == "shelve") and demand not in ("normal", "fault", "rebaseline"):
        raise HarkenError(
            Sentence("an end belongs to shelving and spans of time"),
            next_step=Sentence("Leave it out, or give it there"),
        )
    if demand in ("normal", "fault") and bool(request.alarm) == (since is not None):
        raise HarkenError(
            Sentence("needs an alarm or a span of time"),
            next_step=Sentence("Name the alarm, or the time since when, and not both"),
        )
    if demand == "rebaseline" and (since is None or request.alarm):
        raise HarkenError(
            Sentence("needs the time since when"), next_step=Sentence("Give that of the end of the maintenance")
        )
    if demand not in ("normal", "fault", "rebaseline") and (since is not None or request.alarm):
        raise HarkenError(
            Sentence("{demand} has no alarm and no time since when", demand=demand),
            next_step=Sentence("Leave them out"),
        )
    if since is not None and (since >= request.time or (until is not None and until <= since)):
        raise HarkenError(
            Sentence("this span of time holds nothing"), next_step=Sentence("Give a time that is over, and a later end")
        )
    if (request.version is not None) and (demand != "rollback" or request.version < 1):
        raise HarkenError(
            Sentence("a version belongs to a rollback"), next_step=Sentence("Give the number of one, from 1")
        )
    if request.force and demand != "normal":
        raise HarkenError(
            Sentence("{demand} is never refused for what the model knows", demand=demand),
            next_step=Sentence("Leave force out"),
        )

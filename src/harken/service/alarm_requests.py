"""What people ask of an alarm, as events of its state."""

from __future__ import annotations

from datetime import timedelta

from harken.service.alarm_state import Acknowledge, Event, Service, Shelve, Unshelve
from harken.service.requests import Demand, Request

#: longest shelving; what is to be silent for longer is out of service
LONGEST_SHELVED = timedelta(days=14)
#: answers to what changes nothing
WITHOUT_EFFECT: dict[Demand, str] = {
    "acknowledge": "there is no alarm to acknowledge",
    "shelve": "it is shelved until then already",
    "unshelve": "it is not shelved",
    "out of service": "it is out of service already",
    "in service": "it is in service already",
}


def event_of(request: Request) -> tuple[Event | None, str]:
    """The event of a request, and the answer if it has an effect; None, and why, for one that cannot be done.

    Raises ValueError for one that is about the model.
    """
    time, until = request.time, request.until
    match request.demand:
        case "acknowledge":
            return Acknowledge(time), "acknowledged"
        case "shelve":
            if until is None or until <= time:
                return None, "not shelved: the time of its end has passed"
            if until - time > LONGEST_SHELVED:
                return None, f"not shelved: {LONGEST_SHELVED.days} days at most, or take it out of service"
            return Shelve(time, until), f"shelved until {until:%Y-%m-%d %H:%M} UTC"
        case "unshelve":
            return Unshelve(time), "not shelved any more"
        case "out of service" | "in service":
            return Service(time, request.demand == "out of service"), request.demand
        case _:
            raise ValueError(f"{request.demand} is asked of the model, not of the alarm")

"""What people ask of an alarm, as events of its state, and what they are answered."""

from __future__ import annotations

from datetime import timedelta

from harken.core.sentences import Sentence
from harken.service.alarm_state import Acknowledge, Event, Service, Shelve, Unshelve
from harken.service.requests import Request

#: longest shelving; what is to be silent for longer is out of service
LONGEST_SHELVED = timedelta(days=14)


def event_of(request: Request) -> tuple[Event | None, Sentence]:
    """The event of a request, and the answer if it has an effect; None, and why, for one that cannot be done.

    Raises ValueError for one that is about the model.
    """
    time, until = request.time, request.until
    match request.demand:
        case "acknowledge":
            return Acknowledge(time), Sentence("acknowledged")
        case "shelve":
            if until is None or until <= time:
                return None, Sentence("not shelved: the time of its end has passed")
            if until - time > LONGEST_SHELVED:
                most = LONGEST_SHELVED.days
                return None, Sentence("not shelved: {days} days at most, or take it out of service", days=most)
            return Shelve(time, until), Sentence("shelved until {time}", time=f"{until:%Y-%m-%d %H:%M} UTC")
        case "unshelve":
            return Unshelve(time), Sentence("not shelved any more")
        case "out of service":
            return Service(time, True), Sentence("out of service")
        case "in service":
            return Service(time, False), Sentence("in service")
        case _:
            raise ValueError(f"{request.demand} is asked of the model, not of the alarm")

"""Several people act on one alarm: each is answered who was first, and nobody's name or comment is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from harken.core.sentences import Sentence
from harken.service.alarm_state import Action, AlarmState
from harken.service.changes import HistoryEntry
from harken.service.requests import Demand, Request

#: what others did within this time before is mentioned in an answer: the person may not have seen it
AT_ONCE = timedelta(minutes=5)
#: what a request does, where it has an effect
EFFECTS: dict[Demand, Action] = {
    "acknowledge": "acknowledged",
    "shelve": "shelved",
    "unshelve": "unshelved",
    "out of service": "out of service",
    "in service": "in service",
}
#: answers to what changes nothing: where nobody was first, and where somebody was
_NOTHING: dict[Demand, Sentence] = {
    "acknowledge": Sentence("there is no alarm to acknowledge"),
    "shelve": Sentence("it is shelved until then already"),
    "unshelve": Sentence("it is not shelved"),
    "out of service": Sentence("it is out of service already"),
    "in service": Sentence("it is in service already"),
}
_ALREADY = {**_NOTHING, "acknowledge": Sentence("it is acknowledged already")}
#: what somebody else has done just before
_BEFORE: dict[str, partial[Sentence]] = {
    "acknowledge": partial(Sentence, "{answer}; {who} acknowledged it just before"),
    "shelve": partial(Sentence, "{answer}; {who} shelved it just before"),
    "unshelve": partial(Sentence, "{answer}; {who} ended shelving just before"),
    "out of service": partial(Sentence, "{answer}; {who} took it out of service just before"),
    "in service": partial(Sentence, "{answer}; {who} put it into service just before"),
}


@dataclass(frozen=True)
class Asker:
    """Who asked for something with an effect, when, and why."""

    who: str
    time: datetime
    text: str = ""


class Askers:
    """The last to have asked with an effect, by demand; of one machine."""

    def __init__(self, last: Mapping[str, Asker] | None = None) -> None:
        self._last = dict(last or {})

    def note(self, request: Request) -> None:
        """It had an effect."""
        self._last[request.demand] = Asker(request.who, request.time, request.text)

    def answer(self, request: Request, answer: Sentence) -> Sentence:
        """Of a request with an effect: what somebody else did just before is said, too."""
        others = [
            (asker.time, demand, asker.who)
            for demand, asker in self._last.items()
            if asker.who != request.who and abs(request.time - asker.time) <= AT_ONCE and demand in _BEFORE
        ]
        if not others:
            return answer
        _, demand, who = max(others)
        return _BEFORE[demand](answer=answer, who=who or "?")

    def first(self, request: Request, state: AlarmState) -> Asker | None:
        """Who did before what a request without an effect asks for; None where nobody did, or long ago."""
        asker = self._last.get(request.demand)
        stands = {
            "acknowledge": state.phase == "acknowledged",
            "shelve": state.shelved_until is not None,
            "out of service": state.out_of_service,
        }.get(request.demand, False)
        if asker is None or not (stands or abs(request.time - asker.time) <= AT_ONCE):
            return None
        return asker

    def to_json(self) -> dict[str, list[str]]:
        """JSON-able."""
        return {name: [asker.who, asker.time.isoformat(), asker.text] for name, asker in self._last.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Askers:
        """Inverse of `to_json`. Raises ValueError and TypeError for other values."""
        return cls({name: Asker(who, datetime.fromisoformat(time), text) for name, (who, time, text) in values.items()})


def without_effect(request: Request, first: Asker | None) -> tuple[Sentence, HistoryEntry | None]:
    """The answer to a request that changes nothing, and what is kept of it: nobody's name or comment is lost."""
    if first is None:
        entry = HistoryEntry(request.machine, request.time, "comment", request.who, request.text)
        return _NOTHING[request.demand], entry if request.text else None
    answer = _ALREADY[request.demand]
    if first.who != request.who:
        who, time = first.who or "?", _utc(first.time)
        answer = Sentence("{answer}: {who} was first, at {time}", answer=answer, who=who, time=time)
    elif request.text in ("", first.text):
        return answer, None
    action = f"also {EFFECTS[request.demand]}"
    return answer, HistoryEntry(request.machine, request.time, action, request.who, request.text)


def _utc(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"

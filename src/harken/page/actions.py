"""What people ask of the monitor of a machine, from the page or a program."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast, get_args

from harken.core.errors import HarkenError
from harken.core.names import shown
from harken.core.sentences import Sentence
from harken.service.requests import MODEL_DEMANDS, AlarmDemand, Demand, Request, check_request
from harken.service.store.store import Store

DEMANDS: tuple[str, ...] = (*get_args(AlarmDemand), *MODEL_DEMANDS)
#: characters of a name and of a comment; hours of a shelving
LONGEST_NAME, LONGEST_TEXT, MOST_HOURS = 100, 2000, 24 * 30
#: how long an answer of the monitor is waited for, and one about its model
_PATIENCE_S, _MODEL_PATIENCE_S = 3.0, 8.0
#: how long an open page looks for one
_AWAITED = timedelta(minutes=1)


def ask(
    store: Store,
    monitor: str,
    machine: str,
    demand: str,
    *,
    who: str = "",
    text: str = "",
    hours: float | None = None,
    alarm: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    version: int | None = None,
    force: bool = False,
) -> int:
    """Leave a request to a monitor; its number. hours: of a shelving; others: see `Request`.

    Raises HarkenError for what is none.
    """
    if demand not in DEMANDS:
        raise HarkenError(
            Sentence("{demand!r} cannot be asked", demand=shown(demand)),
            next_step=Sentence("Ask one of: {demands}", demands=", ".join(DEMANDS)),
        )
    if len(who) > LONGEST_NAME or len(text) > LONGEST_TEXT:
        raise HarkenError(
            Sentence("name or comment is too long"),
            next_step=Sentence(
                "Write at most {name} and {text} characters",
                name=LONGEST_NAME,
                text=LONGEST_TEXT,
            ),
        )
    if (hours is not None) != (demand == "shelve") or not 0 < (hours or 1.0) <= MOST_HOURS:
        raise HarkenError(
            Sentence("hours belong to shelving, and to that alone"),
            next_step=Sentence("Give more than 0, at most {most}", most=MOST_HOURS),
        )
    now = datetime.now(UTC)
    if hours is not None:
        until = now + timedelta(hours=hours)
    elif until is not None and demand not in MODEL_DEMANDS:
        raise HarkenError(
            Sentence("an end belongs to spans of time"), next_step=Sentence("Give hours, or leave it out")
        )
    request = Request(
        machine, cast(Demand, demand), shown(who.strip()), now, until, shown(text.strip()), 0, alarm, since, version,
        force,
    )  # fmt: skip
    check_request(request)
    return Store(store.engine, monitor, store.name).ask(request)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. text: what the monitor answered, None as long as it did not. forcible: whether it was
    refused for what the model knows, and can be forced."""

    request: Request
    text: str | None
    forcible: bool

    @property
    def awaited(self) -> bool:
        """Whether the monitor may soon answer: a page that asks again for ever takes the focus away for nothing."""
        return self.text is None and _recent(self.request)


def _recent(request: Request) -> bool:
    return datetime.now(UTC) - request.time < _AWAITED


def answered(store: Store, number: int) -> Answer | None:
    """What the monitor answered within a moment. None: there is no such request."""
    request = store.request(number)
    if request is None:
        return None
    patience_s = _MODEL_PATIENCE_S if request.demand in MODEL_DEMANDS else _PATIENCE_S
    end = time.monotonic() + (patience_s if _recent(request) else 0.0)
    while (answer := store.answer(number)) is None and time.monotonic() < end:
        time.sleep(0.1)
    refused = answer is not None and answer.startswith("refused: ") and "--force" in answer
    return Answer(request, answer, refused and request.demand == "normal" and not request.force)

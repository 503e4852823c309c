"""What people ask of the monitor of a machine, from the page or a program."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import get_args

from harken.core.errors import HarkenError
from harken.core.names import shown
from harken.service.changes import Demand, Request
from harken.service.store.store import Store

DEMANDS = get_args(Demand)
#: characters of a name and of a comment; hours of a shelving
LONGEST_NAME, LONGEST_TEXT, MOST_HOURS = 100, 2000, 24 * 30
#: how long an answer of the monitor is waited for
_PATIENCE_S = 3.0


def ask(
    store: Store, monitor: str, machine: str, demand: str, *, who: str = "", text: str = "", hours: float | None = None
) -> int:
    """Leave a request to a monitor; its number. Raises HarkenError for what is none."""
    if demand not in DEMANDS:
        raise HarkenError(f"{shown(demand)!r} cannot be asked", next_step=f"Ask one of: {', '.join(DEMANDS)}")
    if len(who) > LONGEST_NAME or len(text) > LONGEST_TEXT:
        raise HarkenError(
            "name or comment is too long", next_step=f"Write at most {LONGEST_NAME} and {LONGEST_TEXT} characters"
        )
    if (hours is not None) != (demand == "shelve") or not 0 < (hours or 1.0) <= MOST_HOURS:
        raise HarkenError(
            "hours belong to shelving, and to that alone", next_step=f"Give more than 0, at most {MOST_HOURS}"
        )
    now = datetime.now(UTC)
    until = now + timedelta(hours=hours) if hours is not None else None
    request = Request(machine, demand, shown(who.strip()), now, until, shown(text.strip()))  # type: ignore[arg-type]
    return Store(store.engine, monitor, store.name).ask(request)


def answered(store: Store, number: int, patience_s: float = _PATIENCE_S) -> str | None:
    """What the monitor answered; None if it did not within a moment."""
    end = time.monotonic() + patience_s
    while (answer := store.answer(number)) is None and time.monotonic() < end:
        time.sleep(0.1)
    return answer

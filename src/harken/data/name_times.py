"""Times at which recordings were made, as file names tell them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

#: a number of seconds since 1970 in a name is of September 2001 to 2036; later ones would be dates with two-digit years
_FIRST_EPOCH, _LAST_EPOCH = 1_000_000_000, 2_100_000_000

_DATES = (
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<s>[-_. ]?)(?P<month>\d\d)(?P=s)(?P<day>\d\d)",
    # Day first is unambiguous with dots only.
    r"(?<!\d)(?P<day>\d\d)\.(?P<month>\d\d)\.(?P<year>(?:19|20)\d\d)",
)
_CLOCK = (
    r"(?P<hour>[01]\d|2[0-3])(?P<t>[-_.:h ]?)(?P<minute>[0-5]\d)"
    r"(?:(?:(?P=t)|m)(?P<second>[0-5]\d)s?(?P<fraction>[.,]\d+|\d{3}|\d{6})?)?(?!\d)"
    r"(?P<zone>Z(?![a-z])|\+\d\d:?\d\d)?"
)
_DATE_AND_CLOCK = [re.compile(rf"{date}(?:[T_\-/. ]{{0,3}}| at ){_CLOCK}", re.IGNORECASE) for date in _DATES]
_DATE = [re.compile(rf"{date}(?!\d)") for date in _DATES]
_CLOCK_WITH_SECONDS = re.compile(
    r"(?<!\d)(?P<hour>[01]\d|2[0-3])(?P<t>[-_.:h ]?)(?P<minute>[0-5]\d)(?:(?P=t)|m)(?P<second>[0-5]\d)s?(?!\d)"
)
_SHORT = re.compile(
    r"(?<!\d)(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)[T_\-]"
    r"(?P<hour>[01]\d|2[0-3])(?P<minute>[0-5]\d)(?P<second>[0-5]\d)(?!\d)"
)
_EPOCH = re.compile(r"(?<!\d)(?P<seconds>\d{10})(?P<fraction>\d{3}|\d{6}|\d{9}|[.]\d+)?(?!\d)")


class NamedTime(NamedTuple):
    """Time in a name. seconds: since 1970, as if on a clock without time zones unless `zoned`. remaining: the text
    without it. timed: whether it is more than a date."""

    seconds: float
    remaining: str
    zoned: bool = False
    timed: bool = True


def time_in_name(name: str) -> tuple[float, str] | None:
    """Seconds and remaining text of `named_time`; None where there is no time."""
    named = named_time(name)
    return None if named is None else (named.seconds, named.remaining)


def clock_in_name(name: str) -> datetime | None:
    """Date and time of day in a name; on a clock of this computer's time zone unless the name has another one."""
    named = named_time(name)
    if named is None or not named.timed:
        return None
    moment = datetime.fromtimestamp(named.seconds, UTC)
    return moment if named.zoned else moment.replace(tzinfo=None).astimezone(UTC)


def named_time(name: str) -> NamedTime | None:
    """Time in a file name without its suffix, or in a path, and the text without it; None where there is none.

    Forms: 2024-05-01_13-05-07, 20240501T130507, 20240501_130507.250Z, 2024-05-01 at 13.05, 01.05.2024_13-05,
    240501_130507, 2024-05-01/pump_130507 (a date in a folder's name), seconds, milli-, micro- and nanoseconds since
    1970, and dates alone, which are taken for their midnight.
    """
    for pattern in _DATE_AND_CLOCK:
        for match in pattern.finditer(name):
            seconds = _seconds(match.groupdict())
            if seconds is not None:
                remaining = name[: match.start()] + name[match.end() :]
                return NamedTime(seconds, remaining, zoned=match["zone"] is not None)
    for pattern in _DATE:
        for match in pattern.finditer(name):
            day = _seconds(match.groupdict())
            if day is None:
                continue
            remaining = name[: match.start()] + " " + name[match.end() :]
            clock = _CLOCK_WITH_SECONDS.search(remaining)
            if clock is None:
                return NamedTime(day, remaining, timed=False)
            seconds = day + _of_day(clock.groupdict())
            return NamedTime(seconds, remaining[: clock.start()] + remaining[clock.end() :])
    for match in _SHORT.finditer(name):
        seconds = _seconds({**match.groupdict(), "year": f"20{match['year']}"})
        if seconds is not None:
            return NamedTime(seconds, name[: match.start()] + name[match.end() :])
    for match in _EPOCH.finditer(name):
        epoch, fraction = int(match["seconds"]), match["fraction"] or ""
        if _FIRST_EPOCH <= epoch < _LAST_EPOCH:
            remaining = name[: match.start()] + name[match.end() :]
            return NamedTime(epoch + _fraction(fraction), remaining, zoned=True)
    return None


def _seconds(fields: dict[str, str | None]) -> float | None:
    """Seconds since 1970; None for what is no date."""
    try:
        day = datetime(int(fields["year"] or 0), int(fields["month"] or 0), int(fields["day"] or 0), tzinfo=UTC)
    except ValueError:
        return None
    zone = (fields.get("zone") or "Z").replace(":", "")
    offset = timedelta() if zone in "Zz" else timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
    return (day - offset).timestamp() + _of_day(fields)


def _of_day(fields: dict[str, str | None]) -> float:
    """Seconds since midnight."""
    hour, minute, second = (int(fields.get(name) or 0) for name in ("hour", "minute", "second"))
    return 3600.0 * hour + 60.0 * minute + second + _fraction(fields.get("fraction") or "")


def _fraction(digits: str) -> float:
    digits = digits.lstrip(".,")
    return float(f"0.{digits}") if digits else 0.0

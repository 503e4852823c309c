"""False-alarm rates and periods as people write them: `0.1%`, `1 in 500`, `1/week`, `10 per hour`, `10min`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from harken.core.errors import HarkenError, did_you_mean
from harken.core.sentences import Sentence

_SECONDS = {
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "shift": 8 * 3600.0,
    "day": 86_400.0,
    "week": 604_800.0,
    "month": 2_629_746.0,
    "quarter": 7_889_238.0,
    "year": 31_556_952.0,
}
_SHORT = {
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
    "d": "day",
    "w": "week",
    "wk": "week",
    "mo": "month",
    "q": "quarter",
    "y": "year",
    "yr": "year",
}
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_TIMED = re.compile(rf"{_NUMBER}\s*(?:/|per\b|an?\b|every\b|in\b)\s*{_NUMBER}?\s*([a-z]+)")
_COUNTED = re.compile(rf"{_NUMBER}\s*(?:/|in\b|of\b)\s*{_NUMBER}(?:\s*(?:clips?|recordings?))?")
#: the highest share of normal clips that may be alarms
MOST = 0.5
#: the lowest share, and the longest time per false alarm: nobody can tell whether a lower rate is kept
LEAST, LONGEST_S = 1e-9, 100 * _SECONDS["year"]


@dataclass(frozen=True)
class Rate:
    """A false-alarm rate: a share of normal clips, or a number per second. Exactly one of them is set."""

    per_clip: float | None = None
    per_second: float | None = None

    def of_clips(self, interval_s: float) -> float:
        """Share of normal clips, of which one begins every `interval_s` seconds."""
        return self.per_clip if self.per_clip is not None else (self.per_second or 0.0) * interval_s


def read_rate(text: str) -> Rate:
    """Parse a share (`0.1%`, `0.001`, `1 in 500`) or a number per time (`1/week`, `2 per day`, `1/2 weeks`, `10/h`).

    A shift is 8 hours. Raises HarkenError with the nearest valid form for other text, for a share above 0.5, and for
    rates below `LEAST` or one in `LONGEST_S`.
    """
    words = _words(text)
    timed = _TIMED.fullmatch(words)
    if timed is not None and timed[3] not in ("clip", "clips", "recording", "recordings"):
        seconds = _period(timed[3], text) * float(timed[2] or 1)
        if float(timed[1]) > 0 and seconds > 0:
            per_second = float(timed[1]) / seconds
            if per_second * LONGEST_S < 1:
                raise HarkenError(f"{text!r} is rarer than anybody can tell", next_step="The lowest is 1/100 years")
            return Rate(per_second=per_second)
    counted = _COUNTED.fullmatch(words)
    share = None
    if counted is not None and float(counted[2]) > 0:
        share = float(counted[1]) / float(counted[2])
    elif re.fullmatch(rf"{_NUMBER}\s*%", words):
        share = float(words.rstrip("% ")) / 100
    elif re.fullmatch(rf"{_NUMBER}(e-[0-9]+)?", words):
        share = float(words)
    if share is not None and 0 <= share < LEAST and re.search("[1-9]", words.partition("e")[0]):
        step = "The lowest is 1e-9, one in a thousand million recordings; 1/week and 1/year are rates per time"
        raise HarkenError(f"{text!r} is rarer than anybody can tell", next_step=step)
    if share is None or not 0 < share <= MOST:
        raise HarkenError(f"{text!r} is not a false-alarm rate", next_step=_advice(words, share))
    return Rate(per_clip=share)


def parse_rate(text: str, interval_s: float) -> float:
    """`read_rate` as a share of normal clips, of which one begins every `interval_s` seconds.

    Raises HarkenError as `read_rate`, and for a rate per time that is more than half of the clips.
    """
    share = read_rate(text).of_clips(interval_s)
    if share > MOST:
        raise HarkenError(
            f"{text!r} is more than half of all recordings, one of which begins every {interval_s:.3g} s",
            next_step="Give a lower rate, as 1/day or 1%",
        )
    return share


def parse_period(text: str) -> float:
    """Seconds of a period such as `10min`, `30 s`, `1.5 h`. Raises HarkenError for other text, and for zero."""
    match = re.fullmatch(rf"{_NUMBER}?\s*([a-z]+)", _words(text))
    seconds = float(match[1] or 1) * _period(match[2], text) if match else 0.0
    if seconds <= 0:
        raise HarkenError(f"{text!r} is not a period", next_step="Give a number and a unit, as 30s, 10min or 1h")
    return seconds


_PERIODS = {
    "year": partial(Sentence, "{count} years"),
    "month": partial(Sentence, "{count} months"),
    "week": partial(Sentence, "{count} weeks"),
    "day": partial(Sentence, "{count} days"),
    "hour": partial(Sentence, "{count} hours"),
    "minute": partial(Sentence, "{count} minutes"),
}


def in_words(seconds: float) -> Sentence:
    """A period for people, to two digits: `82 minutes`, `3.4 days`."""
    for name, words in _PERIODS.items():
        # A name is used from two of it on; minutes give way to hours where these are not too few.
        if seconds >= 2 * _SECONDS[name]:
            return words(count=two_digits(seconds / _SECONDS[name]))
    return Sentence("{count} seconds", count=two_digits(seconds))


def one_in(rate: float) -> Sentence:
    """A share of clips for people, to two digits: `1 in 490`."""
    return Sentence("1 in {count}", count=two_digits(1 / rate))


def two_digits(value: float) -> Sentence:
    """A number for people, to two digits and without an exponent: `3.4`, `490`, `1,200`."""
    if value < 10:
        return Sentence("{number:.2g}", number=value)
    scale = 10 ** (len(str(int(value))) - 2)
    return Sentence("{number:,}", number=round(value / scale) * scale)


def _words(text: str) -> str:
    return " ".join(str(text).strip().lower().split())


def _period(unit: str, text: str) -> float:
    name = unit if unit in _SECONDS else _SHORT.get(unit, unit.removesuffix("s"))
    name = _SHORT.get(name, name)
    if name not in _SECONDS:
        raise HarkenError(
            f"{text!r} has an unknown unit of time, {unit!r}",
            next_step=did_you_mean(name, _SECONDS, f"Units are {', '.join(_SECONDS)}"),
        )
    return _SECONDS[name]


def _advice(words: str, share: float | None) -> str:
    comma = re.fullmatch(r"([0-9]+),([0-9]+)\s*(%?)", words)
    if comma:
        return f"Did you mean {comma[1]}.{comma[2]}{comma[3]}"
    if share is not None and 1 <= share <= 100 * MOST and "%" not in words:
        return f"Did you mean {share:g}%"
    return "Give a share of clips up to 50% (0.1%, 1 in 500) or a number per time (1/week, 2/day, 10/h)"

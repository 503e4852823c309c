"""What an alarm is set to: the rate of false alarms that was asked for, what the recordings support, and the words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.detection.calibration import Calibration
from harken.detection.details import DETAIL_SHARE, MOST_DETAIL_SHARE, detail_shares
from harken.detection.rates import MOST, Rate, in_words, one_in, parse_period, parse_rate, read_rate, two_digits
from harken.detection.sequential import EDetector

#: the rate of single recordings is the lowest one that still finds faults
AUTO = "auto"
#: rate of false reports of a lasting change, unless a rate per time was asked for; with `auto`, no rate of single
#: recordings below half of it is set
CHANGES = Rate(per_second=1 / 604_800)
#: fewer recordings look independent by chance although they are not (`benchmarks/lasting.py`)
SHOWS_CORRELATION = 60


@dataclass(frozen=True)
class AlarmSetting:
    """Rates of false alarms.

    false_alarms: as asked for: `auto`, a share of recordings, or a rate per time (`harken.detection.rates`).
    interval_s: from the beginning of one recording to that of the next. block: see `EDetector`.
    events, tones: calibrations of the scores of short events and of tones, where there are such. among: how many times
    rarer than of recordings the alarms of what is judged are, see `of_segments`. segments: whether recordings are
    segments of longer ones, for the words.

    Single recordings and several together are two tests. A rate per time is halved between them; with a share of
    recordings or `auto`, lasting changes have the rate `CHANGES`. The false alarms of single recordings are shared by
    the views, see `shares`. Raises HarkenError for a rate that is not understood.
    """

    false_alarms: str
    calibration: Calibration
    interval_s: float
    block: int = 1
    events: Calibration | None = None
    among: float = 1.0
    segments: bool = False
    tones: Calibration | None = None

    def __post_init__(self) -> None:
        # A rate that cannot be set is refused here, not where a threshold is first needed.
        if self.false_alarms != AUTO:
            parse_rate(self.false_alarms, self.interval_s)

    def of_segments(self, count: int, seconds: float, *, together: bool) -> AlarmSetting:
        """The setting for each of `count` segments of a recording of `seconds`.

        together: whether the worst of them judges the recording. A share is one of recordings, or of segments that are
        not judged together; a rate per time holds in time, be the recordings gapless or snapshots.
        """
        among = float(count) if together else 1.0
        if self._timed:
            among = count * min(1.0, self.interval_s / seconds)
        return replace(self, among=among) if among > 1 else self

    @cached_property
    def rate(self) -> float:
        """Share of normal recordings, or segments, that raise an alarm on their own."""
        return self._of_recordings / self.among

    @property
    def _of_recordings(self) -> float:
        if self.false_alarms == AUTO:
            finest = max(self.calibration.finest_with_power, CHANGES.of_clips(self.interval_s) / 2)
            return min(finest / self.shares[0], MOST)
        asked = parse_rate(self.false_alarms, self.interval_s)
        return asked / 2 if self._timed else asked

    @cached_property
    def change_rate(self) -> float:
        """False reports of a lasting change per recording."""
        asked = read_rate(self.false_alarms) if self._timed else CHANGES
        share = asked.of_clips(self.interval_s)
        return min(share / 2 if self._timed else share, MOST)

    @cached_property
    def shares(self) -> tuple[float, float, float]:
        """Of the false alarms of single recordings: those of the sound as a whole, of short events and of tones.

        With `auto` as much as lets every threshold be one that is reached, see `detail_shares`.
        """
        if self.events is None:
            return 1.0, 0.0, 0.0
        auto, finest = self.false_alarms == AUTO, self.calibration.finest_with_power
        of_events = self.events.finest_with_power
        if self.tones is not None:
            return detail_shares((finest, of_events, self.tones.finest_with_power) if auto else None)
        share = min(max(of_events / (finest + of_events), DETAIL_SHARE), MOST_DETAIL_SHARE) if auto else DETAIL_SHARE
        return 1.0 - share, share, 0.0

    @property
    def score_rate(self) -> float:
        """Share of normal recordings whose score is above the threshold."""
        return self.rate * self.shares[0]

    @property
    def _timed(self) -> bool:
        return self.false_alarms != AUTO and read_rate(self.false_alarms).per_second is not None

    @cached_property
    def threshold(self) -> float:
        """Scores strictly above it are alarms."""
        return self.calibration.threshold(self.score_rate)

    @cached_property
    def event_threshold(self) -> float | None:
        """Scores of short events strictly above it are alarms; None without a view of them."""
        return None if self.events is None else self.events.threshold(self.rate * self.shares[1])

    @cached_property
    def tone_threshold(self) -> float | None:
        """Scores of tones strictly above it are alarms; None without a view of them."""
        return None if self.tones is None else self.tones.threshold(self.rate * self.shares[2])

    @cached_property
    def changes(self) -> EDetector:
        """The test of several recordings together."""
        return EDetector(self.calibration, self.change_rate, self.block)

    @property
    def powerful(self) -> bool:
        """Whether the threshold of single recordings is one that faults reach."""
        return self.score_rate >= self.calibration.finest_with_power * (1 - 1e-9)

    def sentences(self) -> list[Sentence]:
        """What the maker of a model must know of its alarm."""
        limit = Sentence("{score:.4g}", score=self.threshold)
        if self.event_threshold is not None:
            limit = Sentence("{score}, or event score {event:.4g}", score=limit, event=self.event_threshold)
        if self.tone_threshold is not None:
            limit = Sentence("{score}, or tone score {tone:.4g} dB", score=limit, tone=self.tone_threshold)
        alarm = Sentence(
            "alarm above score {limit}: {often} of normal sound", limit=limit, often=self._often(self.rate)
        )
        if self.false_alarms == AUTO and self.powerful:
            alarm = Sentence("{alarm}, the rarest that these recordings support", alarm=alarm)
        lines = [alarm, self._lasting()]
        if self.calibration.unsupported(self.score_rate):
            lines.append(self._beyond_support())
        return lines + ([] if self.powerful else [self._without_power()])

    def as_json(self) -> dict[str, Any]:
        """Rates, threshold and sentences, JSON-able."""
        return {
            "false_alarms": self.false_alarms,
            "interval_s": self.interval_s,
            "rate": self.rate,
            "threshold": self.threshold,
            "event_threshold": self.event_threshold,
            "tone_threshold": self.tone_threshold,
            "powerful": self.powerful,
            "finest_rate_with_power": self.calibration.finest_with_power,
            "height": self.calibration.height(self.score_rate),
            "change_rate": self.change_rate,
            "change_recordings": self.changes.fewest_clips if self.changes.supported else None,
            "block": self.block,
            "effective_recordings": self.calibration.effective,
            "alarm": self.sentences(),
        }

    def _often(self, rate: float) -> Sentence:
        """A rate per recording, and in time."""
        values = {"share": one_in(rate), "time": in_words(self.interval_s / rate)}
        if self.segments:
            return Sentence("{share} segments, one in {time}", **values)
        return Sentence("{share} recordings, one in {time}", **values)

    def _counted(self, count: int) -> Sentence:
        if self.segments:
            return Sentence("{count} segments", count=count)
        return Sentence("{count} recordings", count=count)

    def _lasting(self) -> Sentence:
        clips, count = self.changes.fewest_clips, len(self.calibration.scores)
        if self.changes.supported:
            lasting = Sentence(
                "lasting change: reported after {recordings} or more ({delay}), falsely at most once in {time}",
                recordings=self._counted(clips),
                delay=in_words(clips * self.interval_s), time=in_words(self.interval_s / self.change_rate),
            )  # fmt: skip
            if count >= SHOWS_CORRELATION:
                return lasting
            return Sentence(
                "{lasting}, if independent, which {recordings} hardly show",
                lasting=lasting,
                recordings=self._counted(count),
            )
        recordings = self._counted(count)
        least = self.calibration.least_effective
        if least < 0.5 * count:
            recordings = Sentence(
                "{recordings}, alike in time and worth perhaps only {worth}",
                recordings=recordings,
                worth=two_digits(least),
            )
        return Sentence(
            "lasting change: not reported, since {recordings} are too few for it: record over a longer time",
            recordings=recordings,
        )

    def _beyond_support(self) -> Sentence:
        effective = max(1, round(self.calibration.effective))
        return Sentence(
            "{share} is beyond what these recordings support: {count}, alike in time, are worth about {independent}, "
            "so that there may be several times as many false alarms: record over a longer time, on several days",
            share=one_in(self.rate), count=len(self.calibration.scores), independent=_independent(effective),
        )  # fmt: skip

    def _without_power(self) -> Sentence:
        count, finest = len(self.calibration.scores), self.calibration.finest_with_power
        effective = round(self.calibration.effective)
        recordings = self._counted(count)
        if effective != count:
            recordings = Sentence(
                "{recordings} (as good as {independent})", recordings=recordings, independent=_independent(effective)
            )
        supported = replace(self, false_alarms=AUTO, among=1.0).rate
        # On the machines of `benchmarks/alarms.py`, the finest rate falls as the number of recordings to the power 1.5.
        more = (finest / self.score_rate) ** (2 / 3)
        return Sentence(
            "{recordings} cannot keep {asked} by single recordings and still find most faults: the alarm is "
            "{height:.1f} times as far above the usual score as the highest normal recording. What they support is "
            "{often} (--false-alarms auto). For {asked}, give about {more} times as many recordings, of several days, "
            "or let lasting changes ring",
            recordings=recordings, asked=self.false_alarms, height=self.calibration.height(self.score_rate),
            often=self._often(supported), more=two_digits(more),
        )  # fmt: skip


def _independent(count: int) -> Sentence:
    if count == 1:
        return Sentence("1 independent one")
    return Sentence("{count} independent ones", count=count)


def check_request(false_alarms: str, every: str | None) -> None:
    """Raise HarkenError unless the rate and the interval are written in a form that is understood."""
    if every is not None:
        parse_period(every)
    if false_alarms != AUTO:
        read_rate(false_alarms)


def interval_of(every: str | None, clip_seconds: float) -> float:
    """Seconds between the beginnings of recordings: `every`, or gapless recordings of `clip_seconds`.

    Raises HarkenError for an interval shorter than half a recording: such ones would not be independent.
    """
    if every is None:
        return clip_seconds
    seconds = parse_period(every)
    if seconds < 0.5 * clip_seconds:
        raise HarkenError(
            f"recordings of {clip_seconds:.3g} s cannot begin every {seconds:.3g} s",
            next_step="Give the time from the beginning of one recording to that of the next",
        )
    return seconds

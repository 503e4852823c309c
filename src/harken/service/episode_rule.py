"""From scores of windows to "sounds abnormal" and back, so rarely by mistake as was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from math import ceil
from typing import Any

from harken.core.sentences import Sentence
from harken.detection.rates import in_words, two_digits
from harken.detection.sequential import EDetector, Evidence
from harken.monitor.alarm import AlarmSetting
from harken.monitor.detector import Detector
from harken.monitor.judge import judge
from harken.monitor.verdict import Kind
from harken.monitor.view_scores import ViewScores

#: rate of false alarms unless another is asked for
DEFAULT_RATE = "1/quarter"
#: windows that are worth fewer independent ones show too little of their own correlation for a test of many windows
#: (`benchmarks/alarm_rates.py`)
LEAST_EFFECTIVE = 10.0
#: a lasting change is watched for where it would be reported after so many windows, or within a day
_MOST_WINDOWS, _MOST_S = 1000, 86_400.0
#: windows without a sign of a fault after which an alarm ends, at least
_QUIET_WINDOWS = 10


@dataclass(frozen=True)
class EpisodeMemory:
    """State between two windows, JSON-able.

    evidence: see `EDetector`. on: the machine sounds abnormal. ringing: windows in a row that would raise the alarm;
    quiet: windows in a row, in an episode, without a sign of a fault; quiet_needed: so many end it. block_start: of the
    first window of the present block; onset: of the window with which the change most likely began.
    """

    evidence: Evidence = field(default_factory=Evidence)
    on: bool = False
    ringing: int = 0
    quiet: int = 0
    quiet_needed: int = 0
    block_start: datetime | None = None
    onset: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Fields by name, times in ISO 8601."""
        times = {name: time and time.isoformat() for name, time in self._times().items()}
        return {**asdict(self), "evidence": self.evidence.to_json(), **times}

    def _times(self) -> dict[str, datetime | None]:
        return {"block_start": self.block_start, "onset": self.onset}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EpisodeMemory:
        """Inverse of `to_json`. Raises ValueError, KeyError and TypeError for other values."""
        block_start, onset = (
            values[name] and datetime.fromisoformat(values[name]) for name in ("block_start", "onset")
        )
        return cls(
            evidence=Evidence.from_json(values["evidence"]),
            on=bool(values["on"]),
            ringing=int(values["ringing"]),
            quiet=int(values["quiet"]),
            quiet_needed=int(values["quiet_needed"]),
            block_start=block_start,
            onset=onset,
        )


@dataclass(frozen=True)
class EpisodeRule:
    """Two tests at half of the rate each: one of single windows, one of many together (`AlarmSetting`).

    An episode begins after `on_delay_s` of windows in a row of which each would raise the alarm. It ends after
    `off_delay_s` of windows in a row that are normal, where the test of many windows has ended its own episode: a score
    above all normal recordings, though below the limit, goes on (hysteresis). Windows that are not judged do not count.

    setting: with the rate, and the time from the beginning of one window to that of the next. off_delay_s: None for ten
    windows, or if that is longer twice the time for which windows are correlated, or four times that from the onset to
    the alarm: a change that was noticed slowly would else be noticed again and again.
    """

    setting: AlarmSetting
    on_delay_s: float = 0.0
    off_delay_s: float | None = None

    @classmethod
    def of(
        cls,
        detector: Detector,
        rate: str = DEFAULT_RATE,
        hop_s: float | None = None,
        on_delay_s: float = 0.0,
        off_delay_s: float | None = None,
    ) -> EpisodeRule:
        """For windows of this model that begin every `hop_s` seconds (None: gapless).

        Raises HarkenError for a rate that is not understood, or is more than half of the windows.
        """
        hop_s = detector.segment_s if hop_s is None else hop_s
        # Windows that overlap, or follow each other sooner than those learned from, are correlated over more of them.
        block = ceil(detector.fitted.block * max(1.0, detector.segment_s / hop_s) - 1e-6)
        events, tones = (
            None if view is None else view.calibration for view in (detector.fitted.events, detector.fitted.tones)
        )
        setting = AlarmSetting(rate, detector.calibration, hop_s, block, events, tones=tones)
        return cls(setting, on_delay_s, off_delay_s)

    @cached_property
    def lasting(self) -> EDetector | None:
        """The test of many windows; None where the normal recordings do not support it."""
        test = self.setting.changes
        most = max(_MOST_WINDOWS, _MOST_S / self.setting.interval_s)
        supported = self.setting.calibration.least_effective >= LEAST_EFFECTIVE and test.fewest_clips <= most
        return test if supported else None

    @property
    def on_windows(self) -> int:
        """Windows in a row that raise the alarm."""
        return max(1, ceil(self.on_delay_s / self.setting.interval_s))

    @property
    def off_windows(self) -> int:
        """Windows in a row that end it."""
        if self.off_delay_s is not None:
            return max(1, ceil(self.off_delay_s / self.setting.interval_s))
        return max(_QUIET_WINDOWS, 2 * self.setting.block)

    def hear(self, memory: EpisodeMemory, start: datetime, scores: ViewScores) -> EpisodeMemory:
        """Memory after one more judged window. start: its time."""
        e_value = 0.0 if self.lasting is None else float(self.lasting.e_values(scores.sound))
        return self.advance(memory, start, e_value, judge(scores, self.setting).kind)

    def advance(self, memory: EpisodeMemory, start: datetime, e_value: float, kind: Kind) -> EpisodeMemory:
        """The same by the window's e-value in the test of many, and what it is on its own."""
        before = evidence = memory.evidence
        block_start = memory.block_start if before.pending_clips and memory.block_start else start
        if self.lasting is not None:
            evidence = self.lasting.advance(before, e_value)
        onset = memory.onset
        if not memory.on and (onset is None or evidence.onset != before.onset or self.lasting is None):
            onset = block_start
        rings = evidence.alarm or kind == "alarm"
        ringing = memory.ringing + 1 if rings else 0
        if not memory.on:
            on = ringing >= self.on_windows
            needed = self.off_windows
            if on and self.off_delay_s is None:
                needed = max(needed, 4 * (evidence.clips - evidence.onset))
            return EpisodeMemory(evidence, on, ringing, 0, needed, block_start, onset)
        quiet = 0 if rings or kind == "suspect" else memory.quiet + 1
        on = quiet < memory.quiet_needed
        return replace(memory, evidence=evidence, on=on, ringing=ringing, quiet=quiet, block_start=block_start)

    def sentences(self) -> list[str]:
        """What the alarm is set to, and what the normal recordings cannot support, with the hours that are missing."""
        setting, hop_s = self.setting, self.setting.interval_s
        limit = Sentence("{score:.4g}", score=setting.threshold)
        if setting.event_threshold is not None:
            limit = Sentence("{score}, or event score {event:.4g}", score=limit, event=setting.event_threshold)
        if setting.tone_threshold is not None:
            limit = Sentence("{score}, or tone score {tone:.4g} dB", score=limit, tone=setting.tone_threshold)
        if not setting.powerful:
            limit = Sentence("{limit}, which only loud faults reach", limit=limit)
        lines: list[str] = [
            Sentence(
                "false alarms: {rate}; a single window raises the alarm above score {limit}",
                rate=setting.false_alarms, limit=limit,
            )
        ]  # fmt: skip
        test = setting.changes
        if self.lasting is not None:
            delay = in_words(test.fewest_clips * hop_s)
            lines.append(
                Sentence(
                    "a lasting change raises it after {windows} windows or more ({delay})",
                    windows=test.fewest_clips, delay=delay,
                )
            )  # fmt: skip
            return lines
        calibration = setting.calibration
        count, least = len(calibration.scores), calibration.least_effective
        if least < LEAST_EFFECTIVE:
            lines.append(
                Sentence(
                    "lasting changes raise no alarm: {count} normal windows, which are alike in time, may be worth "
                    "only {worth} independent ones, and {needed:.0f} are needed: record about {missing} more of normal "
                    "sound, and fit again",
                    count=count, worth=two_digits(max(least, 1.0)), needed=LEAST_EFFECTIVE,
                    missing=in_words(self.missing_s),
                )
            )  # fmt: skip
        else:
            lines.append(
                Sentence(
                    "lasting changes raise no alarm: normal windows are alike over {alike}, so that one would be "
                    "reported after {delay} only: record on more days, or ask for a higher rate of false alarms",
                    alike=in_words(test.block * hop_s), delay=in_words(test.fewest_clips * hop_s),
                )
            )  # fmt: skip
        return lines

    @property
    def missing_s(self) -> float:
        """Seconds of normal sound that are missing for the test of many windows; 0 where there is enough."""
        calibration = self.setting.calibration
        count, least = len(calibration.scores), calibration.least_effective
        return max(0.0, (LEAST_EFFECTIVE / least - 1.0) * count * self.setting.interval_s)

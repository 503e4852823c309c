"""What scores make a recording: normal, suspect or an alarm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harken.detection.calibration import Calibration
from harken.detection.events import joined_p
from harken.monitor.alarm import AlarmSetting
from harken.monitor.verdict import GRAVITY, Kind, View


@dataclass(frozen=True)
class Judgement:
    """See `Verdict` for the fields."""

    kind: Kind
    p_value: float
    decided_by: View
    higher_than: int
    of: int


def judge(score: float, event_score: float | None, alarm: AlarmSetting, among: int = 1) -> Judgement:
    """score: of the sound as a whole. event_score: of short events, None without a view of them. among: number of
    segments of which the worst judges the recording: its p-value is that many times as large (Bonferroni).

    A recording is an alarm where one of the scores is above its threshold, and suspect where it is above all held-out
    scores of its kind. So that not twice as many normal recordings are suspect, short events are only where their
    p-value is that much smaller, too.
    """
    calibration, events = alarm.calibration, alarm.events
    p_value = float(calibration.p_value(score)) * among
    higher_than = _higher_than(score, calibration)
    above_all = higher_than == len(calibration.scores) and (among == 1 or p_value <= calibration.finest)
    kind: Kind = "alarm" if score > alarm.threshold else "suspect" if above_all else "normal"
    if event_score is None or events is None or alarm.event_threshold is None:
        return Judgement(kind, min(p_value, 1.0), "sound", higher_than, len(calibration.scores))
    event_p = float(events.p_value(event_score)) * among
    p_value = float(joined_p(p_value, event_p, alarm.event_share))
    higher_than_events = _higher_than(event_score, events)
    rare = higher_than_events == len(events.scores) and event_p <= alarm.event_share * events.finest
    event_kind: Kind = "alarm" if event_score > alarm.event_threshold else "suspect" if rare else "normal"
    if GRAVITY[event_kind] > GRAVITY[kind]:
        return Judgement(event_kind, p_value, "event", higher_than_events, len(events.scores))
    return Judgement(kind, p_value, "sound", higher_than, len(calibration.scores))


def _higher_than(score: float, calibration: Calibration) -> int:
    """Number of held-out scores that it is higher than."""
    return int(np.searchsorted(calibration.scores, score, side="left"))

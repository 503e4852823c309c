"""What scores make a recording: normal, suspect or an alarm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harken.detection.calibration import Calibration
from harken.detection.details import DETAIL_SHARE, joined_p
from harken.monitor.alarm import AlarmSetting
from harken.monitor.verdict import GRAVITY, Kind, View
from harken.monitor.view_scores import ViewScores


@dataclass(frozen=True)
class Judgement:
    """See `Verdict` for the fields."""

    kind: Kind
    p_value: float
    decided_by: View
    higher_than: int
    of: int


def judge(scores: ViewScores, alarm: AlarmSetting, among: int = 1) -> Judgement:
    """among: number of segments of which the worst judges the recording: its p-value is that many times as large
    (Bonferroni).

    A recording is an alarm where one of the scores is above its threshold, and suspect where it is above all held-out
    scores of its kind. So that not several times as many normal recordings are suspect, events and tones are only where
    their p-value is that much smaller, too. Of views that find the same, the first decides.
    """
    views: list[tuple[View, float | None, Calibration | None, float | None]] = [
        ("sound", scores.sound, alarm.calibration, alarm.threshold),
        ("event", scores.event, alarm.events, alarm.event_threshold),
        ("tone", scores.tone, alarm.tones, alarm.tone_threshold),
    ]
    judgements: list[Judgement] = []
    p_values: list[float] = []
    shares: list[float] = []
    for (view, score, calibration, threshold), share in zip(views, alarm.shares, strict=True):
        if score is None or calibration is None or threshold is None:
            continue
        p_value = float(calibration.p_value(score)) * among
        higher_than, of = int(np.searchsorted(calibration.scores, score, side="left")), len(calibration.scores)
        rare = p_value <= calibration.finest if among > 1 else True
        if view != "sound":
            rare = p_value <= max(share, DETAIL_SHARE) * calibration.finest
        kind: Kind = "alarm" if score > threshold else "suspect" if higher_than == of and rare else "normal"
        judgements.append(Judgement(kind, p_value, view, higher_than, of))
        p_values.append(p_value)
        shares.append(share)
    first = max(judgements, key=lambda each: GRAVITY[each.kind])
    p_value = float(joined_p(p_values, shares if len(shares) > 1 else [1.0]))
    return Judgement(first.kind, p_value, first.decided_by, first.higher_than, first.of)

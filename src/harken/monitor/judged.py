"""What a model says of sound whose features are there: kinds alone, without explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.embeddings.embedder import ClipFeatures
from harken.monitor.alarm import AlarmSetting, interval_of
from harken.monitor.clip_judge import ClipJudge, ClipScores
from harken.monitor.fitted import Fitted
from harken.monitor.judge import judge
from harken.monitor.verdict import Kind
from harken.monitor.view_scores import ViewScores

Bools = NDArray[np.bool_]


def alarm_of(fitted: Fitted) -> AlarmSetting:
    """What the alarm of a model is set to. Raises HarkenError where that is not understood."""
    return setting_of(fitted, fitted.false_alarms, fitted.every)


def setting_of(fitted: Fitted, false_alarms: str, every: str | None) -> AlarmSetting:
    """The alarm of a model, set to a rate. Raises HarkenError where that is not understood."""
    events, tones = (None if view is None else view.calibration for view in (fitted.events, fitted.tones))
    interval_s = interval_of(every, float(np.median(fitted.training.seconds_N)))
    segments = fitted.training.segments
    return AlarmSetting(
        false_alarms, fitted.calibration, interval_s, fitted.block, events, segments=segments, tones=tones
    )


@dataclass(frozen=True)
class Judged:
    """What is said of one clip. reason: why it is not judged. scores: None where it is too short. nearest: row of the
    normal recording most alike."""

    kind: Kind
    scores: ViewScores | None = None
    nearest: int = -1
    reason: str | None = None

    @property
    def score(self) -> float | None:
        """Of the sound as a whole."""
        return None if self.scores is None else self.scores.sound


def judged_clips(fitted: Fitted, features: Sequence[ClipFeatures]) -> list[Judged]:
    """What the model says of each, at what its alarm is set to; as `Verdict`."""
    judge_of_clips, alarm = ClipJudge(fitted), alarm_of(fitted)
    results = []
    for clip, scores in zip(features, judge_of_clips.scores(features), strict=True):
        if scores is None:
            results.append(Judged("not judged", reason=judge_of_clips.too_short(clip)))
            continue
        reason, row = judge_of_clips.unheard(clip), judge_of_clips.learned_row(clip)
        views = scores.scores if row is None else fitted.held_out(row)
        kind = "not judged" if reason is not None else judge(views, alarm).kind
        results.append(Judged(kind, views, scores.nearest, None if reason is None else reason.reason))
    return results


def held_out_kinds(fitted: Fitted, rows: Sequence[int]) -> list[Kind]:
    """What the model says of recordings that it learned from, by their held-out scores."""
    alarm = alarm_of(fitted)
    return [judge(fitted.held_out(row), alarm).kind for row in rows]


@dataclass(frozen=True, eq=False)
class FaultsFound:
    """Which (F,) known faults are alarms, by the sound as a whole, by short events in it and by tones."""

    sound_F: Bools
    event_F: Bools
    tone_F: Bools

    @classmethod
    def by(cls, fitted: Fitted) -> FaultsFound:
        """Those that the model finds at what its alarm is set to."""
        faults, alarm = fitted.faults, alarm_of(fitted)
        if faults is None:
            none = np.zeros(0, dtype=bool)
            return cls(none, none, none)
        scores = ClipJudge(fitted).scores(faults.features())
        rings_F3 = np.array([_rings(clip, alarm) for clip in scores], dtype=bool).reshape(len(scores), 3)
        return cls(*rings_F3.T)

    @property
    def any_F(self) -> Bools:
        """By any of them."""
        return self.sound_F | self.event_F | self.tone_F


def _rings(clip: ClipScores | None, alarm: AlarmSetting) -> tuple[bool, bool, bool]:
    if clip is None:
        return False, False, False
    scores, thresholds = clip.scores, (alarm.threshold, alarm.event_threshold, alarm.tone_threshold)
    sound, event, tone = (
        score is not None and threshold is not None and score > threshold
        for score, threshold in zip((scores.sound, scores.event, scores.tone), thresholds, strict=True)
    )
    return sound, event, tone

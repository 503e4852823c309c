"""What a model says of sound whose features are there: kinds alone, without explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.embeddings.embedder import ClipFeatures
from harken.monitor.alarm import AlarmSetting, interval_of
from harken.monitor.clip_judge import ClipJudge
from harken.monitor.fitted import Fitted
from harken.monitor.judge import judge
from harken.monitor.verdict import Kind

Bools = NDArray[np.bool_]


def alarm_of(fitted: Fitted) -> AlarmSetting:
    """What the alarm of a model is set to. Raises HarkenError where that is not understood."""
    events = None if fitted.events is None else fitted.events.calibration
    interval_s = interval_of(fitted.every, float(np.median(fitted.training.seconds_N)))
    return AlarmSetting(
        fitted.false_alarms, fitted.calibration, interval_s, fitted.block, events, segments=fitted.training.segments
    )


@dataclass(frozen=True)
class Judged:
    """What is said of one clip. reason: why it is not judged. score, event_score: None where it is too short. nearest:
    row of the normal recording most alike."""

    kind: Kind
    score: float | None = None
    event_score: float | None = None
    nearest: int = -1
    reason: str | None = None


def judged_clips(fitted: Fitted, features: Sequence[ClipFeatures]) -> list[Judged]:
    """What the model says of each, at what its alarm is set to; as `Verdict`."""
    judge_of_clips, alarm = ClipJudge(fitted), alarm_of(fitted)
    results = []
    for clip, scores in zip(features, judge_of_clips.scores(features), strict=True):
        if scores is None:
            results.append(Judged("not judged", reason=judge_of_clips.too_short(clip)))
            continue
        reason, row = judge_of_clips.unheard(clip), judge_of_clips.learned_row(clip)
        score, event_score = (scores.score, scores.event_score) if row is None else _held_out(fitted, row)
        kind = "not judged" if reason is not None else judge(score, event_score, alarm).kind
        results.append(Judged(kind, score, event_score, scores.nearest, None if reason is None else reason.reason))
    return results


def held_out_kinds(fitted: Fitted, rows: Sequence[int]) -> list[Kind]:
    """What the model says of recordings that it learned from, by their held-out scores."""
    alarm = alarm_of(fitted)
    return [judge(*_held_out(fitted, row), alarm).kind for row in rows]


def _held_out(fitted: Fitted, row: int) -> tuple[float, float | None]:
    events = fitted.events
    return float(fitted.training.scores_N[row]), None if events is None else float(events.scores_N[row])


@dataclass(frozen=True, eq=False)
class FaultsFound:
    """Which (F,) known faults are alarms, by the sound as a whole and by short events in it."""

    sound_F: Bools
    event_F: Bools

    @classmethod
    def by(cls, fitted: Fitted) -> FaultsFound:
        """Those that the model finds at what its alarm is set to."""
        faults, alarm = fitted.faults, alarm_of(fitted)
        if faults is None:
            none = np.zeros(0, dtype=bool)
            return cls(none, none)
        scores = ClipJudge(fitted).scores(faults.features())
        sound_F = np.array([clip is not None and clip.score > alarm.threshold for clip in scores], dtype=bool)
        limit = alarm.event_threshold
        event_F = np.array(
            [
                clip is not None and limit is not None and clip.event_score is not None and clip.event_score > limit
                for clip in scores
            ],
            dtype=bool,
        )
        return cls(sound_F, event_F)

    @property
    def any_F(self) -> Bools:
        """By either."""
        return self.sound_F | self.event_F

"""Scores of windows become episodes: few, whole, and as rare as was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from harken.core.json_text import json_text
from harken.detection.calibration import Calibration
from harken.monitor.alarm import AlarmSetting
from harken.monitor.view_scores import ViewScores
from harken.monitor.views import correlated_clips
from harken.page.texts import texts
from harken.service.episode_rule import EpisodeMemory, EpisodeRule

T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOP = 10.0


def rule_of(scores_N: np.ndarray, rate: str = "1/week", **delays: float) -> EpisodeRule:
    calibration = Calibration.fit(scores_N)
    block = correlated_clips(len(scores_N), calibration.least_effective)
    return EpisodeRule(AlarmSetting(rate, calibration, HOP, block), **delays)


def heard(rule: EpisodeRule, scores: Iterable[float], memory: EpisodeMemory = EpisodeMemory()) -> list[EpisodeMemory]:
    memories = []
    for number, score in enumerate(scores):
        memory = rule.hear(memory, T0 + timedelta(seconds=HOP * number), ViewScores(float(score)))
        memories.append(memory)
    return memories


def episodes(memories: list[EpisodeMemory]) -> int:
    on = np.array([False, *(memory.on for memory in memories)])
    return int((on[1:] & ~on[:-1]).sum())


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_fault_is_one_episode_with_its_onset(rng: np.random.Generator) -> None:
    rule = rule_of(rng.normal(size=300))
    scores = np.concatenate([rng.normal(size=200), rng.normal(2.5, 1, 100), rng.normal(size=300)])
    memories = heard(rule, scores)
    assert episodes(memories) == 1
    on = [memory.on for memory in memories]
    began, ended = on.index(True), len(on) - on[::-1].index(True)
    assert 200 < began < 230
    assert 300 < ended < 400
    onset = memories[began].onset
    assert onset is not None
    assert abs((onset - T0).total_seconds() / HOP - 200) < 5


def test_a_score_that_hovers_at_a_limit_is_one_episode(rng: np.random.Generator) -> None:
    """24 hours of windows around the limit of single windows, and around that below which an alarm ends."""
    rule = rule_of(rng.normal(size=300))
    highest = float(rule.setting.calibration.scores[-1])
    for limit in (rule.setting.threshold, highest):
        scores = limit + 0.1 * rng.normal(size=8640)
        assert episodes(heard(rule, scores)) == 1


def test_an_on_delay_needs_windows_in_a_row(rng: np.random.Generator) -> None:
    normal = rng.normal(size=300)
    loud = rule_of(normal).setting.threshold + 1
    scores = np.zeros(40)
    scores[[5, 20, 21, 22]] = loud
    begins = [
        [memory.on for memory in heard(rule_of(normal, on_delay_s=delay, off_delay_s=30.0), scores)].index(True)
        for delay in (0.0, 30.0)
    ]
    assert begins == [5, 22]
    on = [memory.on for memory in heard(rule_of(normal, off_delay_s=30.0), scores[:20])]
    assert on[5:8] == [True, True, True]
    assert not on[8], "three quiet windows, 30 s, end it"


def test_what_the_recordings_cannot_support_is_said_with_the_hours(rng: np.random.Generator) -> None:
    steps = rng.normal(size=250)
    slow = np.convolve(steps, np.ones(60) / 60, mode="valid")
    rule = rule_of(slow)
    assert rule.lasting is None
    (_, line) = rule.sentences()
    assert "record about" in line
    assert "more of normal sound" in line
    assert rule.missing_s > 1800
    # A single loud window raises the alarm all the same.
    assert heard(rule, [slow.max() + 1e5 * slow.std()])[0].on
    assert rule_of(rng.normal(size=300)).missing_s == 0


def test_the_limits_of_all_views_are_said(rng: np.random.Generator) -> None:
    whole, events, tones = (Calibration.fit(rng.normal(size=300)) for _ in range(3))
    setting = AlarmSetting("1/week", whole, HOP, 1, events, tones=tones)
    (line, *_) = EpisodeRule(setting).sentences()
    assert f"above score {setting.threshold:.4g}, or event score {setting.event_threshold:.4g}, or tone score" in line
    assert f"{setting.tone_threshold:.4g} dB" in line
    assert f"oder des Tonwerts {setting.tone_threshold:.4g} dB".replace(".", ",") in texts("de").sentence(line)


def test_memory_is_taken_up_again(rng: np.random.Generator) -> None:
    rule = rule_of(rng.normal(size=100))
    scores = np.concatenate([rng.normal(size=50), rng.normal(3, 1, 50)])
    whole = heard(rule, scores)
    middle = EpisodeMemory.from_json(whole[39].to_json())
    json_text(middle.to_json())
    assert middle == whole[39]
    again = heard(rule, scores[40:], middle)
    assert [memory.on for memory in again] == [memory.on for memory in whole[40:]]


def test_correlated_scores_keep_the_rate(rng: np.random.Generator) -> None:
    """A day of windows at one false alarm an hour, of correlation .9: no more than asked for."""
    from scipy.signal import lfilter

    def scores(count: int) -> np.ndarray:
        return lfilter([1.0], [1.0, -0.9], rng.normal(size=count + 200))[200:]

    rule = rule_of(scores(2000), "1/hour")
    assert rule.lasting is not None
    assert episodes(heard(rule, scores(8640))) <= 24

"""Alarms from several clips together."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from harken.detection.calibration import Calibration
from harken.detection.sequential import EDetector, Evidence


def calibration(count: int, seed: int = 0) -> Calibration:
    scores = np.random.default_rng(seed).random(count)
    return Calibration.independent(scores)


def evenly(count: int) -> Calibration:
    """Scores that divide [0, 1] into equal parts: p-values are exact given the set."""
    return Calibration.independent(np.arange(1, count + 1) / (count + 1))


def episodes(detector: EDetector, scores: np.ndarray) -> int:
    alarms = np.array([evidence.alarm for evidence in detector.run(scores)])
    return int(alarms[0]) + int((alarms[1:] & ~alarms[:-1]).sum())


@pytest.mark.parametrize("rate", [0.02, 0.005])
def test_mean_number_of_clips_until_a_false_alarm_is_at_least_one_over_the_rate(rate: float) -> None:
    detector = EDetector(evenly(199), rate, confidence=0.0)
    rng = np.random.default_rng(1)
    lengths = []
    for _ in range(60):
        scores = rng.random(int(20 / rate))
        lengths.append(next((e.clips for e in detector.run(scores) if e.alarm), len(scores)))
    assert np.mean(lengths) > (1 - 3 / np.sqrt(60)) / rate
    assert np.mean(lengths) < 10 / rate


def test_e_values_have_mean_one_and_at_most_one_for_the_share_of_sets() -> None:
    plain = EDetector(calibration(50), 0.01, confidence=0.0)
    assert plain.rank_values.mean() == pytest.approx(1.0)
    assert (np.diff(plain.rank_values) < 0).all()
    held = 0
    for seed in range(400):
        detector = EDetector(calibration(50, seed), 0.01, confidence=0.9)
        # Uniform scores: the probability of a rank is the distance of neighbouring held-out scores.
        gaps = np.diff(np.concatenate([[0.0], detector.calibration.scores, [1.0]]))[::-1]
        held += float(gaps @ detector.rank_values) <= 1
    assert 0.86 < held / 400 < 0.94


def test_lasting_fault_is_found_in_few_clips_and_ends_with_it() -> None:
    rng = np.random.default_rng(2)
    detector = EDetector(calibration(200), 10 / 604_800)
    states = list(detector.run(np.concatenate([rng.random(300), np.full(20, 2.0), rng.random(60)])))
    alarms = [state.alarm for state in states]
    first = alarms.index(True)
    assert not any(alarms[:300])
    assert first < 300 + detector.fewest_clips <= 310
    assert 285 <= states[319].onset <= 300
    assert all(alarms[first:320])
    assert not any(alarms[345:])
    # One episode: the alarm is raised once.
    assert episodes(detector, np.concatenate([rng.random(100), np.full(200, 2.0)])) == 1


@given(scores=st.lists(st.floats(0, 1.5), min_size=1, max_size=60), cut=st.integers(0, 60), block=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_state_in_json_goes_on_where_it_stopped(scores: list[float], cut: int, block: int) -> None:
    detector = EDetector(evenly(40), 0.01, block=block)
    whole = list(detector.run(scores))
    first = list(detector.run(scores[:cut]))
    state = Evidence.from_json(json.loads(json.dumps((first[-1] if first else Evidence()).to_json())))
    assert [*first, *detector.run(scores[cut:], state)] == whole


def test_higher_scores_never_lessen_the_evidence() -> None:
    rng = np.random.default_rng(3)
    detector = EDetector(calibration(60), 1e-6)
    scores = rng.random(50)
    low, high = list(detector.run(scores)), list(detector.run(scores + 0.05))
    assert all(a.value <= b.value for a, b in zip(low, high, strict=True))


def test_correlated_clips_keep_the_rate_of_episodes_in_blocks() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(size=42_000) * np.sqrt(1 - 0.9**2)
    scores = np.asarray(lfilter([1], [1, -0.9], noise))[1_000:]
    normal = Calibration.fit(scores[:1_000])
    rate = 1 / 2_000
    assert episodes(EDetector(normal, rate), scores[1_000:]) > 3 * rate * 40_000
    assert episodes(EDetector(normal, rate, block=40), scores[1_000:]) <= 1.5 * rate * 40_000


@pytest.mark.parametrize(
    "fields",
    [{}, {"value": 1.0}, {**Evidence().to_json(), "value": float("nan")}, {**Evidence().to_json(), "clips": "3"},
     {**Evidence().to_json(), "alarm": 1}, {**Evidence().to_json(), "onset": -1}],
)  # fmt: skip
def test_damaged_states_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected|not a"):
        Evidence.from_json(fields)


def test_invalid_settings_and_scores_are_refused() -> None:
    for settings_ in (
        {"rate": 0.0},
        {"rate": 0.1, "bet": 1.0},
        {"rate": 0.1, "confidence": 1.0},
        {"rate": 0.1, "block": 0},
    ):
        with pytest.raises(ValueError, match="needed"):
            EDetector(evenly(10), **settings_)
    with pytest.raises(ValueError, match="finite"):
        EDetector(evenly(10), 0.1).update(Evidence(), float("nan"))

"""False-alarm rates: thresholds and p-values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import binom

from harken.core.errors import HarkenError
from harken.detection.calibration import Calibration, autocorrelation_time, parse_rate


def autoregressive(count: int, rho: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(size=count + 2_000) * np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise)[2_000:]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0.1%", 0.001),
        ("0.02", 0.02),
        ("1/week", 10 / 604_800),
        ("2/day", 20 / 86_400),
        ("3 / hours", 30 / 3_600),
    ],
)
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text, clip_seconds=10) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "weekly", "0", "-1%", "60%", "1/fortnight", "nan", "inf", "1000/hour"])
def test_invalid_rates_are_refused(text: str) -> None:
    with pytest.raises(HarkenError, match="not a false-alarm rate"):
        parse_rate(text, clip_seconds=10)


@given(
    scores=st.lists(st.floats(0.1, 100), min_size=1, max_size=60),
    rate=st.floats(1e-6, 0.5),
    queries=st.lists(st.floats(0, 500), min_size=1, max_size=20),
)
@settings(max_examples=200)
def test_p_values_fall_with_the_score_and_agree_with_the_threshold(
    scores: list[float], rate: float, queries: list[float]
) -> None:
    calibration = Calibration.fit(scores)
    values = np.sort(np.concatenate([queries, scores]))
    p = calibration.p_value(values)
    assert (np.diff(p) <= 1e-15).all()
    assert (p > 0).all() or np.ptp(scores) == 0
    assert (p <= 1).all()
    threshold = calibration.threshold(rate)
    alarm = values > threshold
    slack = 1e-9
    assert (p[alarm] <= rate + slack).all()
    assert (p[~alarm & (values < threshold * (1 - 1e-9))] >= rate - slack).all()


@pytest.mark.parametrize("count", [50, 600])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1])
def test_exchangeable_clips_have_the_given_false_alarm_rate(count: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    alarms = clips = 0
    for _ in range(200):
        calibration = Calibration.fit(rng.gamma(3.0, size=count))
        if calibration.extrapolated(rate):
            pytest.skip("finer than these clips support")
        new = rng.gamma(3.0, size=200)
        alarms += int((new > calibration.threshold(rate)).sum())
        clips += len(new)
    # The share has the spread of 200 draws of a beta distribution, one per threshold.
    spread = np.sqrt(rate * (1 - rate) / count / 200 + rate * (1 - rate) / clips)
    assert alarms / clips < rate + 3 * spread
    assert alarms / clips > rate - 1 / (count + 1) - 3 * spread


@pytest.mark.parametrize("rho", [0.9, 0.99])
@pytest.mark.parametrize("rate", [0.1, 0.02, 0.001])
def test_correlated_clips_reduce_the_effective_sample_size(rho: float, rate: float) -> None:
    """Episodes (runs of alarms) stay within 1.5 times the given rate, however few independent clips there are."""
    rng = np.random.default_rng(1)
    episodes, clips = 0, 0
    for _ in range(40):
        sequence = autoregressive(10_600, rho, rng)
        calibration = Calibration.fit(sequence[:400])
        assert calibration.effective < 400 * 2 * (1 - rho) / (1 + rho) + 20
        alarm = sequence[600:] > calibration.threshold(rate)
        episodes += int(alarm[0]) + int((alarm[1:] & ~alarm[:-1]).sum())
        clips += len(alarm)
    assert episodes <= 1.5 * rate * clips


def test_the_finest_rate_is_one_in_the_effective_number_plus_one() -> None:
    rng = np.random.default_rng(2)
    calibration = Calibration.fit(rng.normal(size=99))
    assert calibration.finest == pytest.approx(0.01)
    assert not calibration.extrapolated(0.01)
    assert calibration.extrapolated(0.0099)
    # Continuous where the extrapolation begins.
    top = calibration.scores[-1]
    assert calibration.p_value(top * (1 + 1e-9)) == pytest.approx(0.01, rel=1e-6)
    assert calibration.threshold(0.01) == pytest.approx(top)
    assert calibration.threshold(0.0099999) == pytest.approx(top, rel=1e-3)


def test_autocorrelation_time() -> None:
    rng = np.random.default_rng(3)
    assert autocorrelation_time(rng.normal(size=500)) == 1.0
    assert autocorrelation_time(np.ones(50)) == 1.0
    slow = np.mean([autocorrelation_time(autoregressive(5_000, 0.9, rng)) for _ in range(10)])
    assert slow == pytest.approx(19, rel=0.3)  # (1 + rho) / (1 - rho)


def test_one_score_and_equal_scores() -> None:
    for scores in ([3.0], [2.0] * 9):
        calibration = Calibration.fit(scores)
        assert calibration.p_value(scores[0]) == 1.0
        assert calibration.p_value(scores[0] + 1) < 1.0
        assert calibration.threshold(0.01) >= scores[0]
    with pytest.raises(ValueError, match="finite"):
        Calibration.fit([])


def test_false_alarm_rates_on_real_machines(shared) -> None:  # type: ignore[no-untyped-def]
    """Twelve machines: the false-alarm rate of held-out normal clips of the training condition is as set."""
    from beds import machines
    from harken.detection import create_detector

    inside = {rate: 0 for rate in (0.02, 0.05, 0.1)}
    for bed in machines(shared):
        detector = create_detector("local_density").fit(bed.train, bed.train_domain)
        calibration = Calibration.fit(detector.train_scores_)
        normals = detector.score(bed.test[(~bed.anomaly) & (bed.domain == "source")])
        for rate in inside:
            alarms = int((normals > calibration.threshold(rate)).sum())
            low, high = binom.interval(0.99, len(normals), rate)
            inside[rate] += low <= alarms <= high
    assert all(count >= 11 for count in inside.values()), inside

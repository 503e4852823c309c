"""False-alarm rates: thresholds and p-values."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import binom, genpareto

from harken.core.errors import HarkenError
from harken.detection import create_detector
from harken.detection.blocks import block_numbers, find_blocks
from harken.detection.calibration import POWERFUL_HEIGHT, Calibration, autocorrelation_time
from harken.detection.independent import independent_recordings
from harken.detection.rates import in_words, one_in, parse_period, parse_rate
from harken.detection.tail import TailForm, fit_tail
from harken.monitor.alarm import AlarmSetting


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
        ("10/h", 100 / 3_600),
        ("1/shift", 10 / 28_800),
        ("2 per day", 20 / 86_400),
        ("1 every 2 weeks", 5 / 604_800),
        ("1 a quarter", 10 / 7_889_238),
        ("1 in 500", 0.002),
        ("1/500", 0.002),
        ("1 / 500 clips", 0.002),
        ("1e-3", 0.001),
    ],
)
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text, 10) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "Give a share"),
        ("weekly", "Give a share"),
        ("0", "Give a share"),
        ("-1%", "Give a share"),
        ("60%", "Give a share"),
        ("nan", "Give a share"),
        ("inf", "Give a share"),
        ("0/week", "Give a share"),
        ("1/0", "Give a share"),
        ("1000/hour", "lower rate"),
        ("1/fortnight", "Units are"),
        ("1/wek", "Did you mean week"),
        ("5", "Did you mean 5%"),
        ("0,1 %", "Did you mean 0.1%"),
    ],
)
def test_invalid_rates_are_refused_with_the_nearest_form(text: str, hint: str) -> None:
    with pytest.raises(HarkenError, match=re.escape(repr(text))) as caught:
        parse_rate(text, 10)
    assert hint in str(caught.value)


def test_periods() -> None:
    assert parse_period("10min") == parse_period("10 minutes") == 600
    assert parse_period("h") == 3600
    for text in ("", "10", "0 s", "10 m", "-1 h"):
        with pytest.raises(HarkenError):
            parse_period(text)
    assert [in_words(s) for s in (0.5, 10, 4920, 14_400, 3e5, 6.1e6)] == [
        "0.5 seconds",
        "10 seconds",
        "82 minutes",
        "4 hours",
        "3.5 days",
        "2.3 months",
    ]
    assert one_in(1 / 60_480) == "1 in 60,000"
    assert one_in(0.3) == "1 in 3.3"


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


def test_equal_scores_of_steps_hide_how_far_they_are_apart() -> None:
    scores_N = np.concatenate([np.full(70, -0.25), np.zeros(30)])
    tail = fit_tail(scores_N, 100.0, TailForm(winsorised=True, step=0.25))
    assert 0.01 < float(tail.survival(0.25)) < 0.1
    assert float(fit_tail(scores_N, 100.0, TailForm(winsorised=True)).survival(0.25)) < 1e-9


def test_the_finest_rate_is_one_in_the_effective_number_plus_one() -> None:
    rng = np.random.default_rng(2)
    calibration = Calibration.fit(rng.normal(size=99))
    assert calibration.finest == pytest.approx(0.01)
    assert not calibration.extrapolated(0.01)
    assert calibration.extrapolated(0.0099)


@pytest.mark.parametrize("effective", [600.0, 40.0, 2.0])
def test_tail_is_a_generalised_pareto_law(effective: float) -> None:
    """Against scipy; the mean excess is that of the scores; the share at its base is the conformal p-value."""
    scores = np.sort(np.random.default_rng(4).gamma(3.0, size=600))
    tail = fit_tail(scores, effective)
    assert tail.base == scores[-121]
    assert tail.share == pytest.approx((1 + 120 * effective / 600) / (effective + 1))
    law = genpareto(tail.shape, scale=tail.scale)
    points = tail.base + np.array([0.0, 0.5, 3.0, 30.0])
    assert tail.survival(points) == pytest.approx(tail.share * law.sf(points - tail.base), rel=1e-9)
    assert law.mean() == pytest.approx((scores[-120:] - tail.base).mean())
    for rate in (0.1 * tail.share, 1e-3 * tail.share, 1e-6 * tail.share):
        assert tail.survival(tail.quantile(rate)) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(("count", "highest"), [(1, 0), (2, 1), (8, 4), (20, 10), (30, 10), (60, 12), (600, 120)])
def test_the_tail_is_the_highest_fifth_of_many_and_half_of_few(count: int, highest: int) -> None:
    scores = np.arange(float(count)) ** 2
    tail = fit_tail(scores, float(count))
    assert tail.base == scores[count - 1 - highest]
    assert tail.share == pytest.approx((1 + highest) / (count + 1))
    assert tail.shape == min(max(0.05, 1 / max(highest, 1)), 0.5)
    if highest:
        assert tail.scale == pytest.approx((scores[count - highest :] - tail.base).mean() * (1 - tail.shape))
    assert tail.survival(tail.base - 5) == tail.survival(tail.base) == tail.share
    assert tail.survival([tail.base, tail.base + 1])[1] < tail.share
    assert fit_tail(scores, float(count), TailForm(shape=0.3), share=0.5).shape >= 0.3


def test_equal_scores_have_a_tail_as_wide_as_they_are_high() -> None:
    for value, scale in ((3.0, 3.0), (-3.0, 3.0), (0.0, 1e-6)):
        tail = fit_tail(np.full(40, value), 40.0)
        assert tail.base == value
        assert tail.scale == pytest.approx(scale * (1 - tail.shape))
    # A spread of rounding errors is none.
    assert fit_tail(3.0 + np.linspace(0, 1e-12, 40), 40.0).scale == pytest.approx(3.0 * 0.9)
    assert fit_tail(3.0 + np.linspace(0, 1e-3, 40), 40.0).scale < 1e-3


def test_fewer_independent_scores_have_a_heavier_tail() -> None:
    scores = np.sort(np.random.default_rng(5).gamma(3.0, size=400))
    shapes = [fit_tail(scores, effective).shape for effective in (400.0, 100.0, 20.0, 5.0, 1.0)]
    assert shapes == pytest.approx([0.05, 0.05, 0.25, 0.5, 0.5])


@pytest.mark.parametrize("count", [40, 400])
def test_p_values_of_exchangeable_clips_are_uniform(count: int) -> None:
    """P(p <= u) = u within the binomial spread of clips and sets of normal clips; in the tail within a tenth of u."""
    rng = np.random.default_rng(6)
    p_values = np.concatenate(
        [Calibration.fit(rng.gamma(3.0, size=count)).p_value(rng.gamma(3.0, size=100)) for _ in range(400)]
    )
    for level in (0.5, 0.2, 0.1, 0.05, 0.02):
        spread = np.sqrt(level * (1 - level) * (1 / len(p_values) + 1 / count / 400))
        law = 0.1 * level if level < 0.3 else 0.0
        assert np.mean(p_values <= level) < level + law + 3 * spread
        assert np.mean(p_values <= level) > level - law - 1 / (count + 1) - 3 * spread


@given(scores=st.lists(st.floats(-50, 50), min_size=1, max_size=60), rate=st.floats(1e-7, 0.5))
@settings(max_examples=200)
def test_heights_and_the_finest_rate_with_power(scores: list[float], rate: float) -> None:
    """A rate has power exactly if its threshold is not far above the highest normal score."""
    calibration = Calibration.fit(scores)
    assert np.isfinite(calibration.threshold(rate))
    finest = calibration.finest_with_power
    assert 0 < finest <= 1
    if np.ptp(scores) < 1e-6:
        return
    # Between the limit and the finest rate, the p-value of a threshold may be a count.
    if rate < min(finest, calibration.tail.share) * (1 - 1e-6):
        assert calibration.height(rate) > POWERFUL_HEIGHT * (1 - 1e-6)
    if rate > finest * (1 + 1e-6):
        assert calibration.height(rate) < POWERFUL_HEIGHT * (1 + 1e-6)


def test_more_recordings_support_finer_rates_with_power() -> None:
    rng = np.random.default_rng(7)
    finest = [
        np.median([Calibration.fit(rng.gamma(3.0, size=count)).finest_with_power for _ in range(20)])
        for count in (30, 200, 2000)
    ]
    assert finest[0] > 3 * finest[1] > 9 * finest[2]
    assert Calibration.fit(rng.gamma(3.0, size=60)).height(10 / 604_800) > 2


def test_autocorrelation_time() -> None:
    rng = np.random.default_rng(3)
    assert autocorrelation_time(rng.normal(size=500)).estimate == 1.0
    assert autocorrelation_time(np.ones(50)).estimate == 1.0
    slow = np.mean([autocorrelation_time(autoregressive(5_000, 0.9, rng)).estimate for _ in range(10)])
    assert slow == pytest.approx(19, rel=0.3)  # (1 + rho) / (1 - rho)


def time_by_definition(values: np.ndarray, sequences: np.ndarray, states: np.ndarray) -> tuple[float, float]:
    """Pair by pair: ranks within each state, products of those `lag` places apart in one sequence and state."""
    count, ranks = len(values), np.empty(len(values))
    for state in set(states):
        inside = values[states == state]
        mid_ranks = np.array([np.sum(inside < v) + (np.sum(inside == v) + 1) / 2 for v in inside]) / len(inside)
        ranks[states == state] = mid_ranks - mid_ranks.mean()
    covariance = np.zeros(count // 2)
    for place in set(zip(sequences, states, strict=True)):
        own = ranks[[pair == place for pair in zip(sequences, states, strict=True)]]
        for lag in range(min(len(own), count // 2)):
            covariance[lag] += own[: len(own) - lag] @ own[lag:]
    rho = covariance / covariance[0]
    if rho[1] < 2 / np.sqrt(count):
        return 1.0, 1.0
    pairs = [rho[lag] + rho[lag + 1] for lag in range(0, len(rho) - 1, 2)]
    positive = next((number for number, pair in enumerate(pairs) if pair <= 0), len(pairs))
    lags = 2 * (positive if positive < len(pairs) else positive - 1)
    estimate = min(max(2 * sum(pairs[:positive]) - 1, 1.0), count / 2)
    return estimate, min(count, estimate * (1 + 2 * np.sqrt((4 * lags + 2) / count)))


@given(st.integers(0, 10_000), st.integers(5, 60), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.integers(1, 3))
@settings(max_examples=150)
def test_autocorrelation_time_is_that_of_its_definition(seed: int, count: int, rho: float, groups: int) -> None:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(size=count)) if rho == 1.0 else autoregressive(count, rho, rng)
    values = np.round(walk, int(rng.integers(0, 3)))  # with ties
    sequences, states = rng.integers(0, groups, (2, count))
    if all(np.ptp(values[states == state]) == 0 for state in set(states)):
        return
    expected = time_by_definition(values, sequences, states)
    names = np.array(["a", "b", "c"])
    assert autocorrelation_time(values, names[sequences], states + 7) == pytest.approx(expected, rel=1e-6)
    if groups == 1:
        assert autocorrelation_time(values) == pytest.approx(expected, rel=1e-6)
        calibration = Calibration.fit(values)
        assert calibration.effective == pytest.approx(count / expected[0], rel=1e-6)
        assert calibration.least_effective == pytest.approx(count / expected[1], rel=1e-6)


def test_few_or_equal_values_are_taken_for_independent() -> None:
    assert autocorrelation_time([1.0, 2.0, 3.0]) == (1.0, 1.0)
    for count in range(4, 60):
        assert autocorrelation_time(np.full(count, 0.3)) == (1.0, 1.0)
    assert autocorrelation_time(np.repeat([1.0, 2.0], 20), states_N=np.repeat(["a", "b"], 20)) == (1.0, 1.0)
    # One that is as often above as below the other: the first lag is no longer positive.
    assert autocorrelation_time(np.tile([1.0, 2.0], 50)) == (1.0, 1.0)
    assert autocorrelation_time(np.repeat([1.0, 2.0], 50)).estimate == pytest.approx(33.3, abs=0.5)


@given(st.lists(st.integers(0, 30).map(float), min_size=2, max_size=60), st.floats(0.05, 1.0), st.floats(0.21, 1.0))
def test_below_the_tail_p_values_and_thresholds_are_counts(scores: list[float], share: float, rate: float) -> None:
    """(1 + n) / (N + 1) with n of the N held-out scores at or above, both in independent clips."""
    values = np.sort(scores)
    calibration = Calibration(values, share * len(values), share * len(values))
    weight = calibration.effective / len(values)
    for score in {*scores, -1.0, *(value - 0.5 for value in scores)}:
        if score <= calibration.tail.base:
            at_least = weight * np.sum(values >= score)
            assert calibration.p_value(score) == pytest.approx((1 + at_least) / (calibration.effective + 1))
        else:
            assert calibration.p_value(score) == calibration.tail.survival(score)
    if rate >= calibration.tail.share:
        threshold = calibration.threshold(rate)
        assert (1 + weight * np.sum(values > threshold)) / (calibration.effective + 1) <= rate + 1e-9
        lower = values[values < threshold]
        if len(lower):
            assert (1 + weight * np.sum(values > lower[-1])) / (calibration.effective + 1) > rate - 1e-9
    else:
        assert calibration.threshold(rate) == calibration.tail.quantile(rate)


def test_heights_are_relative_to_the_median_and_the_highest_score() -> None:
    calibration = Calibration.independent([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (calibration.effective, calibration.least_effective, calibration.finest) == (5.0, 5.0, 1 / 6)
    rate = float(calibration.p_value(7.0))
    assert calibration.threshold(rate) == pytest.approx(7.0)
    assert calibration.height(rate) == pytest.approx(2.0)
    assert calibration.finest_with_power == calibration.p_value(3.0 + 1.5 * 2.0)
    equal = Calibration.independent([2.0, 2.0])
    assert equal.height(0.1) == np.inf
    assert equal.finest_with_power == 1.0


def test_clips_that_are_alike_are_worth_few() -> None:
    calibration = Calibration(np.arange(100.0), 60.0, 30.0)
    assert calibration.worth(20.0) is calibration
    fewer = calibration.worth(19.0)
    assert (fewer.effective, fewer.least_effective) == (19.0, 19.0)
    assert np.array_equal(fewer.scores, calibration.scores)
    already = Calibration(np.arange(100.0), 10.0, 5.0).worth(19.0)
    assert (already.effective, already.least_effective) == (10.0, 5.0)
    # Two are expected above the threshold of 2 / (effective + 1).
    assert fewer.unsupported(0.0999)
    assert not fewer.unsupported(0.1)
    assert not calibration.unsupported(1e-6)
    assert not Calibration(np.arange(100.0), 20.0, 20.0).unsupported(1e-6)
    # Ten that count as six are few because they are ten.
    assert not Calibration(np.arange(10.0), 6.0, 6.0).unsupported(1e-6)
    assert Calibration(np.arange(10.0), 4.9, 4.9).unsupported(1e-6)


def test_one_score_and_equal_scores() -> None:
    for scores in ([3.0], [2.0] * 9):
        calibration = Calibration.fit(scores)
        assert calibration.p_value(scores[0]) == 1.0
        assert calibration.p_value(scores[0] + 1) < 1.0
        assert calibration.threshold(0.01) >= scores[0]
    for wrong in ([], [1.0, np.nan], [np.inf], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="finite"):
            Calibration.fit(wrong)


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


# --- few recordings that are alike in time


def alike(count: int, rho: float, rng: np.random.Generator) -> np.ndarray:
    return np.stack([autoregressive(count, rho, rng) for _ in range(8)], axis=1)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.97])
def test_recordings_alike_in_time_are_worth_fewer(rho: float) -> None:
    """N (1 - r) / (1 + r) of a first-order process, from few of its values too."""
    rng = np.random.default_rng(4)
    for count in (50, 400):
        worth = np.mean([independent_recordings(alike(count, rho, rng)) for _ in range(20)])
        expected = max(count * (1 - rho) / (1 + rho), 1.0)
        assert 0.7 * expected < worth < max(1.5 * expected, expected + 1.5)
    # Sequences are apart: twice the recordings, twice as many independent ones.
    twice = np.concatenate([alike(200, 0.9, rng), alike(200, 0.9, rng)])
    assert independent_recordings(twice, np.arange(400) // 200) == pytest.approx(400 / 19, rel=0.35)
    assert independent_recordings(np.ones((30, 4))) == 30


@pytest.mark.parametrize("detector", ["local_density", "knn"])
@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_a_rate_is_kept_or_said_to_be_beyond_support(detector: str, rate: float) -> None:
    """Fifty recordings of which each resembles the one before; and fifty independent ones, of which nothing is said."""
    rng = np.random.default_rng(0)
    for rho in (0.9, 0.0):
        alarms, said = [], []
        for _ in range(8):
            rows_ND = alike(50, rho, rng)
            blocks = find_blocks(rows_ND)
            numbers_N = block_numbers(blocks.length, 50) if blocks.length > 1 else None
            fitted = create_detector(detector).fit(rows_ND, None, numbers_N)
            worth = independent_recordings(rows_ND) if blocks.length > 1 else 50
            calibration = Calibration.fit(fitted.train_scores_).worth(worth)
            alarms.append(np.mean(fitted.score(rng.normal(size=(200, 8))) > calibration.threshold(rate)) / rate)
            setting = AlarmSetting(f"{rate:.0%}", calibration, 10.0)
            said.append(any("beyond what these recordings support" in line for line in setting.sentences()))
        if rho:
            assert np.mean(alarms) > 1.5
            assert all(said)
        else:
            assert np.mean(alarms) < 1.5
            assert not any(said)


def test_scores_of_states_are_compared_with_their_own() -> None:
    """A machine that runs loud for hours, then quiet, has no fewer clips for that."""
    rng = np.random.default_rng(0)
    states_N = np.repeat([0, 1, 0, 1], 60)
    scores_N = rng.normal(size=240) + 8 * states_N
    assert Calibration.fit(scores_N, states_N=states_N).effective > 120
    assert Calibration.fit(scores_N).effective < 30

"""The official metric against scikit-learn and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harken.evaluation.metrics import (
    Decisions,
    Roc,
    SectionResult,
    auc,
    decisions,
    f1_best,
    f1_expected,
    harmonic_mean,
    official_score,
    partial_auc,
    section_result,
)


def pairs_won(normal: np.ndarray, odd: np.ndarray) -> float:
    """AUC by counting: the share of pairs in which the anomaly scores higher; a tie is half a win."""
    return float(np.mean((odd[:, None] > normal) + 0.5 * (odd[:, None] == normal)))


def partial_by_counting(anomaly: np.ndarray, scores: np.ndarray, limit: float = 0.1) -> float:
    """McClish's standardised partial AUC, integrated along the ROC curve corner by corner."""
    corners = [(0.0, 0.0)]
    for level in sorted(set(scores), reverse=True):
        called = scores >= level
        corners.append((float(np.mean(called[~anomaly])), float(np.mean(called[anomaly]))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        right = min(x1, limit)
        if right > x0:
            height = y0 + (y1 - y0) * (right - x0) / (x1 - x0)
            area += (right - x0) * (y0 + height) / 2
    least = limit**2 / 2
    return 0.5 * (1 + (area - least) / (limit - least))


@st.composite
def sections(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(anomaly, target, scores) with ties, and every class that a section needs."""
    values = draw(
        st.one_of(
            st.lists(st.integers(0, 6).map(float), min_size=8, max_size=40),
            st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=8, max_size=40),
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 1_000)))
    anomaly, target = rng.integers(0, 2, (2, len(values))).astype(bool)
    anomaly[:4], target[:4] = [True, False, False, False], [True, False, True, False]
    return anomaly, target, np.array(values)


@given(sections())
@settings(max_examples=200)
def test_areas_are_those_of_scikit_learn_bit_for_bit(section: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import roc_auc_score

    anomaly, _, scores = section
    assert auc(anomaly, scores) == roc_auc_score(anomaly, scores)
    assert partial_auc(anomaly, scores) == roc_auc_score(anomaly, scores, max_fpr=0.1)


@given(sections())
@settings(max_examples=100)
def test_areas_are_those_of_counting_also_with_ties(section: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    anomaly, target, values = section
    found = section_result(anomaly, target, values)
    assert found.auc_source == pytest.approx(pairs_won(values[~anomaly & ~target], values[anomaly]), abs=1e-12)
    assert found.auc_target == pytest.approx(pairs_won(values[~anomaly & target], values[anomaly]), abs=1e-12)
    assert found.pauc == pytest.approx(partial_by_counting(anomaly, values), abs=1e-12)


@given(sections(), st.integers(0, 1_000))
@settings(max_examples=100)
def test_only_the_order_of_scores_counts(section: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int) -> None:
    """Not the order of rows, not a monotone transform; turning the scores round turns the area round."""
    anomaly, target, values = section
    found = section_result(anomaly, target, values)
    order = np.random.default_rng(seed).permutation(len(values))
    ranks = np.unique(values, return_inverse=True)[1].astype(float)
    assert section_result(anomaly[order], target[order], values[order]) == found
    assert section_result(anomaly, target, np.exp(ranks / 3) - 7) == found
    assert auc(anomaly, -values) == pytest.approx(1 - auc(anomaly, values), abs=1e-12)


@given(sections())
@settings(max_examples=100)
def test_decisions_and_thresholds_against_scikit_learn(section: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import f1_score, precision_score, recall_score

    anomaly, target, scores = section
    made = decisions(anomaly, target)
    assert made.precision == pytest.approx(precision_score(anomaly, target, zero_division=0), abs=1e-12)
    assert made.recall == pytest.approx(recall_score(anomaly, target), abs=1e-12)
    assert made.f1 == pytest.approx(f1_score(anomaly, target), abs=1e-12)
    levels = np.unique(scores)
    assert f1_best(anomaly, scores) == pytest.approx(max(f1_score(anomaly, scores >= level) for level in levels))
    expected = 0.0
    for low, high in itertools.pairwise(levels):
        expected += f1_score(anomaly, scores > (low + high) / 2) * (high - low) / (levels[-1] - levels[0])
    assert f1_expected(anomaly, scores) == pytest.approx(expected, abs=1e-9)
    assert f1_expected(anomaly, 3 * scores - 5) == pytest.approx(expected, abs=1e-9)


def test_a_wide_gap_makes_a_threshold_easy_to_find() -> None:
    anomaly = np.array([False] * 5 + [True] * 5)
    narrow = np.array([0, 1, 2, 3, 4, 4.01, 5, 6, 7, 8.0])
    wide = np.array([0, 0.1, 0.2, 0.3, 0.4, 7.6, 7.7, 7.8, 7.9, 8.0])
    assert f1_best(anomaly, narrow) == f1_best(anomaly, wide) == 1.0
    assert f1_expected(anomaly, narrow) < 0.8 < 0.9 < f1_expected(anomaly, wide)


@pytest.mark.parametrize(
    ("anomaly", "target", "scores", "message"),
    [
        ([1, 0, 0], [0, 0], [1, 2, 3], "different lengths"),
        ([1, 0, 0], [0, 0, 1], [1, np.nan, 3], "not finite"),
        ([0, 0, 0], [0, 0, 1], [1, 2, 3], "needs anomalies"),
        ([1, 0, 0], [0, 1, 1], [1, 2, 3], "both domains"),
        ([1, 0, 0], [0, 0, 0], [1, 2, 3], "both domains"),
        ([1, 1, 0], [0, 1, 1], [1, 2, 3], "both domains"),
        # Anomalies of a domain are no normal clips of it.
        ([1, 1, 0], [0, 1, 0], [1, 2, 3], "both domains"),
        ([1, 1, 0, 0], [0, 1, 0, 0], [1, 2, 3, 4], "both domains"),
        ([1, 1, 0, 0], [0, 1, 1, 1], [1, 2, 3, 4], "both domains"),
        ([1, 0, 0], [0, 0, 1], [1, 2], "different lengths"),
        ([1, 0, 0], [0, 0, 1], [1, 2, np.inf], "not finite"),
    ],
)
def test_what_has_no_score_is_refused(anomaly: list[int], target: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section_result(anomaly, target, scores)


def test_one_class_has_no_area_and_decisions_need_labels() -> None:
    for measure in (auc, partial_auc, f1_best, f1_expected):
        for anomaly in ([0, 0], [1, 1]):
            with pytest.raises(ValueError, match="normal and anomalous"):
                measure(anomaly, [1.0, 2.0])
        with pytest.raises(ValueError, match="different lengths"):
            measure([0, 1], [1.0])
    with pytest.raises(ValueError, match="different lengths"):
        decisions([0, 1], [1])


def test_values_by_hand() -> None:
    assert decisions([1, 1, 0, 0], [1, 0, 1, 0]) == Decisions(0.5, 0.5, 0.5)
    assert decisions([1, 1, 1, 0], [1, 0, 0, 0]) == Decisions(1.0, 1 / 3, 0.5)
    assert decisions([1, 0], [0, 0]) == Decisions(0.0, 0.0, 0.0)
    assert f1_expected([1, 0], [2.0, 2.0]) == 0.0
    assert f1_expected([0, 0, 1], [0.0, 1.0, 4.0]) == pytest.approx((2 / 3 + 3 * 1.0) / 4)
    assert f1_best([0, 1], [2.0, 2.0]) == pytest.approx(2 / 3)
    assert f1_best([0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(0.8)
    assert auc([0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0]) == 0.75
    # Up to a tenth of false positives this is chance along the diagonal.
    assert partial_auc([0, 1], [1.0, 1.0]) == pytest.approx(0.5)
    roc = Roc.of([0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0])
    assert roc.partial_area(1.0) == pytest.approx(roc.area())
    assert roc.partial_area(0.5) == pytest.approx(0.5 * (1 + (0.25 - 0.125) / (0.5 - 0.125)))


def test_harmonic_means_of_zeros_and_the_order_of_summation() -> None:
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    assert harmonic_mean([0.0, 1.0]) == pytest.approx(2 * 2.220446049250313e-16)
    differ = 0
    for seed in range(20):
        rows = np.random.default_rng(seed).uniform(0.3, 1.0, (7, 3)).tolist()
        results = [SectionResult(*row) for row in rows]
        by_metric, by_row = official_score(results), official_score(results, by_rows=True)
        assert by_metric == harmonic_mean([row[column] for column in range(3) for row in rows])
        assert by_row == harmonic_mean([value for row in rows for value in row])
        differ += by_metric != by_row
    assert differ


def test_the_official_score_is_one_harmonic_mean() -> None:
    results = [SectionResult(0.5, 0.6, 0.7), SectionResult(0.8, 0.9, 1.0)]
    expected = 6 / sum(1 / value for value in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0))
    assert official_score(results) == pytest.approx(expected, abs=1e-15)
    assert official_score([SectionResult(0.0, 0.9, 0.9)]) > 0

"""The official metric against brute force and against the organisers' numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harken.evaluation.metrics import SectionResult, official_score, section_result


def pairs_won(normal: np.ndarray, odd: np.ndarray) -> float:
    """AUC by counting: the share of pairs in which the anomaly scores higher; a tie is half a win."""
    return float(np.mean((odd[:, None] > normal) + 0.5 * (odd[:, None] == normal)))


@given(
    scores=st.lists(st.integers(0, 6), min_size=8, max_size=40),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=100)
def test_auc_is_the_share_of_pairs_won_also_with_ties(scores: list[int], seed: int) -> None:
    values = np.array(scores, dtype=float)
    rng = np.random.default_rng(seed)
    anomaly, target = rng.integers(0, 2, len(values)).astype(bool), rng.integers(0, 2, len(values)).astype(bool)
    anomaly[:4], target[:4] = [True, False, False, False], [True, False, True, False]
    found = section_result(anomaly, target, values)
    assert found.auc_source == pytest.approx(pairs_won(values[~anomaly & ~target], values[anomaly]), abs=1e-12)
    assert found.auc_target == pytest.approx(pairs_won(values[~anomaly & target], values[anomaly]), abs=1e-12)
    order = rng.permutation(len(values))
    shuffled = section_result(anomaly[order], target[order], np.exp(values[order]))
    assert shuffled.pauc == pytest.approx(found.pauc, abs=1e-12)


@pytest.mark.parametrize(
    ("anomaly", "target", "scores", "message"),
    [
        ([1, 0, 0], [0, 0], [1, 2, 3], "different lengths"),
        ([1, 0, 0], [0, 0, 1], [1, np.nan, 3], "not finite"),
        ([0, 0, 0], [0, 0, 1], [1, 2, 3], "needs anomalies"),
        ([1, 0, 0], [0, 1, 1], [1, 2, 3], "both domains"),
    ],
)
def test_what_has_no_score_is_refused(anomaly: list[int], target: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section_result(anomaly, target, scores)


def test_the_official_score_is_one_harmonic_mean() -> None:
    results = [SectionResult(0.5, 0.6, 0.7), SectionResult(0.8, 0.9, 1.0)]
    expected = 6 / sum(1 / value for value in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0))
    assert official_score(results) == pytest.approx(expected, abs=1e-15)
    assert official_score([SectionResult(0.0, 0.9, 0.9)]) > 0


def test_the_organisers_numbers_to_the_last_digit(shared: Path) -> None:
    """Four submissions of DCASE 2022, 21 sections each: difference 0."""
    golden = shared / "golden" / "2022_eval"
    expected = json.loads((golden / "expected.json").read_text())

    def column(path: Path) -> dict[str, float]:
        with path.open(newline="") as handle:
            return {row[0]: float(row[1]) for row in csv.reader(handle) if row}

    for system, numbers in expected.items():
        names = numbers["columns"]
        results = []
        for section, values in numbers["sections"].items():
            machine, number = section.split("/")
            scores = column(golden / "scores" / system / f"anomaly_score_{machine}_section_{number}_test.csv")
            truth, domain = (
                column(golden / kind / f"ground_truth_{machine}_section_{number}_test.csv")
                for kind in ("ground_truth_data", "ground_truth_domain")
            )
            clips = sorted(scores)
            found = section_result([truth[c] for c in clips], [domain[c] for c in clips], [scores[c] for c in clips])
            by_name = dict(zip(names, values, strict=True))
            assert found.auc_source == by_name["AUC (source)"]
            assert found.auc_target == by_name["AUC (target)"]
            assert found.pauc == by_name["pAUC"]
            results.append(found)
        assert official_score(results) == numbers["official score"]

"""Blocks of recordings correlated in time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from harken.detection import create_detector
from harken.detection.blocks import find_blocks
from harken.detection.calibration import Calibration


def autoregressive(count: int, rho: float, seed: int, dimensions: int = 8) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(count + 500, dimensions)) * np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise, axis=0)[500:]


@pytest.mark.parametrize("count", [10, 75, 400])
def test_independent_recordings_need_no_blocks(count: int) -> None:
    lengths = [find_blocks(np.random.default_rng(seed).normal(size=(count, 20))).length for seed in range(20)]
    assert np.mean(np.array(lengths) == 1) > 0.9


def test_groups_of_similar_recordings_get_blocks_of_their_size() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(50, 6)), 4, axis=0) + 0.05 * rng.normal(size=(200, 6))
    blocks = find_blocks(rows)
    assert 4 <= blocks.length <= 8
    assert not blocks.drifting


def test_a_drift_is_detected() -> None:
    rng = np.random.default_rng(0)
    assert find_blocks(np.linspace(0, 10, 200)[:, None] + 0.2 * rng.normal(size=(200, 3))).drifting


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_correlated_recordings_keep_the_false_alarm_rate(rho: float) -> None:
    """End to end on correlated features: the share of alarms, not only their episodes, stays near the given rate."""
    shares = []
    for seed in range(8):
        rows = autoregressive(900, rho, seed)
        length = find_blocks(rows[:400]).length
        assert (length > 1) == (rho > 0)
        blocks = np.arange(400) // length if length > 1 else None
        detector = create_detector("local_density").fit(rows[:400], blocks_N=blocks)
        calibration = Calibration.fit(detector.train_scores_)
        shares.append(np.mean(detector.score(rows[450:]) > calibration.threshold(0.1)))
    assert np.mean(shares) <= 0.15

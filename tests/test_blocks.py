"""Blocks of recordings correlated in time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from harken.detection import create_detector
from harken.detection.blocks import Blocks, block_numbers, find_blocks
from harken.detection.calibration import Calibration, autocorrelation_time


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


@pytest.mark.parametrize("length", [8, 16])
@pytest.mark.parametrize("count", [200, 600])
def test_neighbours_that_clump_do_not_lengthen_blocks(length: int, count: int) -> None:
    """Recordings of one block are nearest to those of one other block: few independent draws, which may be near."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        blocks_ND = np.repeat(rng.normal(size=(count // length + 2, 20)), length, axis=0)
        rows = blocks_ND[rng.integers(length) :][:count] + 0.3 * rng.normal(size=(count, 20))
        assert find_blocks(rows) == Blocks(length, drifting=False)


def test_hubs_and_mutual_neighbours_are_no_correlation_in_time() -> None:
    """Few clusters of many clips, in any order."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 4))[rng.integers(8, size=400)] + 0.02 * rng.standard_t(2, size=(400, 4))
    lengths = [find_blocks(rows[np.random.default_rng(seed).permutation(400)]).length for seed in range(20)]
    assert np.mean(np.array(lengths) == 1) > 0.9


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


def test_states_of_a_machine_are_no_drift() -> None:
    """Recordings sorted by speed: each state is of one time only, and its recordings are independent."""
    rng = np.random.default_rng(0)
    states = np.repeat(np.arange(6), 30)
    rows = 3.0 * states[:, None] + rng.normal(size=(180, 6))
    assert find_blocks(rows).length > 5
    assert find_blocks(rows, states_N=states).length == 1
    scores = states + 0.3 * rng.normal(size=180)
    assert autocorrelation_time(scores).estimate > 20
    assert autocorrelation_time(scores, states_N=states).estimate == 1


def test_states_that_alternate_hide_no_correlation() -> None:
    """Correlation is measured from one recording of a state to the next of that state."""
    states = np.arange(400) % 2
    rows = np.empty((400, 8))
    rows[0::2], rows[1::2] = autoregressive(200, 0.9, 0), 50 + autoregressive(200, 0.9, 1)
    assert find_blocks(rows, states_N=states).length > 3
    assert autocorrelation_time(rows[:, 0], states_N=states).estimate > 5


def test_folders_of_like_recordings_are_blocks() -> None:
    """Nothing is known of time between folders, and recordings within each are alike."""
    rng = np.random.default_rng(0)
    folders = np.repeat(np.arange(40), 5)
    offset = np.repeat(rng.normal(size=(40, 6)), 5, axis=0)
    rows = offset + 0.1 * rng.normal(size=(200, 6))
    blocks = find_blocks(rows, folders)
    assert 4 <= blocks.length <= 8
    assert autocorrelation_time(rows[:, 0], folders).estimate == pytest.approx(5, abs=0.5)
    numbers = block_numbers(blocks.length, 200, folders)
    for folder in range(40):
        mine, others = numbers[folders == folder], numbers[folders != folder]
        assert np.ptp(mine) <= 1
        assert np.abs(mine[:, None] - others).min() > 1


def test_blocks_of_small_states_leave_most_of_the_state() -> None:
    states = np.repeat(["large", "small"], [200, 20])
    numbers = block_numbers(30, 220, None, states)
    assert len(np.unique(numbers[states == "small"])) == 10
    assert len(np.unique(numbers[states == "large"])) == 10


def test_one_sequence_and_state_is_the_default() -> None:
    rows = autoregressive(300, 0.8, 3)
    same = np.zeros(300)
    assert find_blocks(rows) == find_blocks(rows, same, same)
    assert autocorrelation_time(rows[:, 0]) == autocorrelation_time(rows[:, 0], same, same)

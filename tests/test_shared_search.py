"""Folds of one neighbour search have the scores of searches of their own; products of blocks, the bits of rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from harken.detection import create_detector, local_density
from harken.detection.local_density import LocalDensity
from harken.detection.neighbours import Bank, nearest
from harken.detection.space import fit_space, least_stretch


def states(count: int, dimensions: int, spread: float, seed: int = 0) -> np.ndarray:
    """(count, dimensions): three states that vary in four directions, some of them sparse, with duplicates."""
    rng = np.random.default_rng(seed)
    rows_ND = rng.normal(size=(count, 4)) @ rng.normal(size=(4, dimensions)) * rng.choice([1, 6], size=(count, 1))
    rows_ND += 20 * rng.integers(3, size=(count, 1)) + spread * rng.normal(size=(count, dimensions))
    rows_ND[-4:] = rows_ND[:4]
    return rows_ND


@pytest.mark.parametrize("spread", [0.01, 3.0], ids=["candidates are enough", "most rows are searched in full"])
@pytest.mark.parametrize("blocks", [None, 4, 500], ids=["independent", "blocks of 4", "three blocks"])
@pytest.mark.parametrize("space", ["whitened", "raw"])
def test_folds_share_one_search_and_their_scores_stay(
    monkeypatch: pytest.MonkeyPatch, spread: float, blocks: int | None, space: str
) -> None:
    rows_ND = states(1200, 10, spread)
    domains_N = np.where(np.arange(1200) % 100, "source", "target")
    blocks_N = None if blocks is None else np.arange(1200) // blocks
    shared = create_detector("local_density", {"space": space}).fit(rows_ND, domains_N, blocks_N)
    monkeypatch.setattr(local_density, "_MANY", 10**9)
    separate = create_detector("local_density", {"space": space}).fit(rows_ND, domains_N, blocks_N)
    assert np.array_equal(shared.train_scores_, separate.train_scores_)
    assert isinstance(shared, LocalDensity)
    assert isinstance(separate, LocalDensity)
    assert np.array_equal(shared.weights_, separate.weights_)
    assert sorted(shared.state()) == sorted(separate.state())


def test_least_stretch_is_the_least_ratio_of_distances() -> None:
    rows_ND = states(300, 6, 0.5)
    domains_N = np.full(300, "")
    space, other = (fit_space(part, domains_N[: len(part)], "whitened") for part in (rows_ND, rows_ND[:120]))
    ratio_NN = cdist(other.apply(rows_ND), other.apply(rows_ND)) / (
        cdist(space.apply(rows_ND), space.apply(rows_ND)) + np.finfo(float).tiny
    )
    least = least_stretch(space, other)
    ratios = ratio_NN[~np.eye(300, dtype=bool) & (ratio_NN > 0)]
    assert 0.5 * ratios.min() < least <= ratios.min() * (1 + 1e-9)


@pytest.mark.parametrize(("count", "dimensions"), [(5, 3), (30, 64), (700, 33), (40, 700), (500, 96)])
def test_a_row_has_the_same_bits_in_any_company(count: int, dimensions: int) -> None:
    rows_ND = states(count, dimensions, 1.0)
    space = fit_space(rows_ND, np.full(count, ""), "whitened")
    together_ND = space.apply(rows_ND)
    order = np.random.default_rng(1).permutation(count)
    assert np.array_equal(space.apply(rows_ND[order]), together_ND[order])
    for row in order[:9]:
        assert np.array_equal(space.apply(rows_ND[row : row + 1])[0], together_ND[row])


@pytest.mark.parametrize("kind", ["duplicates", "one value", "excluded", "weights"])
def test_candidates_of_large_banks_are_exact(kind: str) -> None:
    rng = np.random.default_rng(2)
    bank_MD = rng.normal(size=(3000, 5))
    if kind == "duplicates":
        bank_MD = bank_MD[rng.integers(20, size=3000)]
    elif kind == "one value":
        bank_MD = np.ones((3000, 5))
    weights_M = rng.uniform(0.1, 3, size=3000) if kind == "weights" else None
    block_M = np.arange(3000) % 2 if kind == "excluded" else None
    query_ND = rng.normal(size=(40, 5))
    distance_NK, row_NK = nearest(
        query_ND,
        Bank(bank_MD),
        4,
        weights_M=weights_M,
        query_blocks_N=None if block_M is None else block_M[:40],
        bank_blocks_M=block_M,
    )
    expected_NM = cdist(query_ND, bank_MD) * (1.0 if weights_M is None else weights_M)
    if block_M is not None:
        expected_NM[block_M[:40, None] == block_M] = np.inf
    np.testing.assert_allclose(distance_NK, np.sort(expected_NM, axis=1)[:, :4], rtol=1e-12)
    if kind in ("excluded", "weights"):
        assert np.array_equal(row_NK, np.argsort(expected_NM, axis=1)[:, :4])

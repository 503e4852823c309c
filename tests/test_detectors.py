"""The conformance suite: what every registered detector does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import LocalOutlierFactor

from harken.detection import create_detector, list_detectors
from harken.detection.neighbours import nearest
from harken.detection.space import fit_space, ledoit_wolf_shrinkage
from harken.detection.states import find_states
from harken.errors import HarkenError

EVERY = pytest.mark.parametrize("name", list_detectors())


def clips(count: int = 60, dimensions: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions))
    return (rng.normal(size=(count, dimensions)) @ mixing).astype(np.float32)


def domains(count: int) -> list[str]:
    return ["target" if i % 7 == 3 else "source" for i in range(count)]


@EVERY
def test_anomalies_score_higher(name: str) -> None:
    detector = create_detector(name).fit(clips(), domains(60))
    normal = detector.score(clips(40, seed=1))
    odd = detector.score(clips(40, seed=2) + 15)
    assert np.median(odd) > normal.max()
    assert normal.dtype == np.float64
    assert np.isfinite(normal).all()
    assert len(np.unique(normal)) == 40


@EVERY
def test_a_clips_score_does_not_depend_on_its_company(name: str) -> None:
    detector = create_detector(name).fit(clips())
    queries = clips(30, seed=1)
    together = detector.score(queries)
    alone = np.array([detector.score(row[None])[0] for row in queries])
    reverse = detector.score(queries[::-1])[::-1]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, reverse)


@EVERY
def test_the_order_of_training_clips_does_not_matter(name: str) -> None:
    bank, labels = clips(), np.array(domains(60))
    order = np.random.default_rng(3).permutation(60)
    blocks = np.arange(60) // 2
    one = create_detector(name).fit(bank, labels, blocks)
    other = create_detector(name).fit(bank[order], labels[order], blocks[order])
    np.testing.assert_array_equal(one.score(clips(9, seed=1)), other.score(clips(9, seed=1)))
    np.testing.assert_array_equal(one.train_scores_[order], other.train_scores_)


@EVERY
def test_fitted_twice_gives_the_same_bytes_and_state_restores_them(name: str) -> None:
    one, other = (create_detector(name).fit(clips(), domains(60)) for _ in range(2))
    for key, array in one.state().items():
        assert array.tobytes() == other.state()[key].tobytes()
    restored = create_detector(name, one.get_params()).restored(one.state())
    np.testing.assert_array_equal(one.score(clips(9, seed=1)), restored.score(clips(9, seed=1)))


@EVERY
def test_held_out_scores_are_like_those_of_new_normal_clips(name: str) -> None:
    detector = create_detector(name).fit(clips(200))
    new = detector.score(clips(400, seed=5))
    share = np.mean(new > np.quantile(detector.train_scores_, 0.9))
    assert 0.03 < share < 0.2


@EVERY
def test_clips_of_one_block_do_not_vouch_for_each_other(name: str) -> None:
    """Thirty recordings, each there twice: only blocks keep a twin from vouching for its twin."""
    bank = np.concatenate([clips(30)] * 2)
    bank += np.random.default_rng(0).normal(scale=1e-4, size=bank.shape).astype(np.float32)
    fooled = create_detector(name).fit(bank).train_scores_
    honest = create_detector(name).fit(bank, blocks_N=2 * (np.arange(60) % 30)).train_scores_
    assert np.median(honest) > 0.95 * np.median(fooled)
    if name in {"knn", "local_density"}:
        assert np.median(honest) > 10 * np.median(fooled)


@EVERY
@pytest.mark.parametrize("count", [3, 4, 11])
def test_few_clips_and_duplicates(name: str, count: int) -> None:
    for bank in (clips(count), np.concatenate([clips(count)] * 2), np.ones((count, 4), np.float32)):
        detector = create_detector(name).fit(bank, ["a", "b"] + ["a"] * (len(bank) - 2))
        assert np.isfinite(detector.train_scores_).all()
        assert np.isfinite(detector.score(bank + 1)).all()


@EVERY
@pytest.mark.parametrize("bad", [np.ones(5), np.ones((1, 5)), np.full((5, 2), np.nan), np.ones((5, 0))])
def test_unusable_input_is_refused(name: str, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected|finite"):
        create_detector(name).fit(bad)
    with pytest.raises(ValueError, match="not fitted"):
        create_detector(name).score(np.ones((2, 2)))
    with pytest.raises(ValueError, match="expected"):
        create_detector(name).fit(clips()).score(np.ones((2, 3)))


@EVERY
def test_scikit_learn_manners(name: str) -> None:
    detector = create_detector(name)
    assert set(vars(detector)) == set(detector.get_params())
    assert type(detector)(**detector.get_params()).get_params() == detector.get_params()


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(HarkenError, match="mahalanobis"):
        create_detector("mahalonobis")
    with pytest.raises(HarkenError, match="neighbours"):
        create_detector("knn", {"neighbors": 3})


@given(
    queries=st.integers(1, 40), bank=st.integers(1, 60), k=st.integers(1, 20), seed=st.integers(0, 1000),
    metric=st.sampled_from(["euclidean", "cosine"]), weighted=st.booleans(), blocked=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_nearest_is_exact(
    queries: int, bank: int, k: int, seed: int, metric: str, weighted: bool, blocked: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(queries, 5)), rng.normal(size=(bank, 5))
    weights = rng.uniform(0.1, 3, bank) if weighted else None
    x_blocks, y_blocks = rng.integers(0, 4, queries), rng.integers(0, 4, bank)
    expected = cdist(x, y, metric)
    if weights is not None:
        expected = expected * weights
    if blocked:
        expected[np.abs(x_blocks[:, None] - y_blocks[None]) <= 1] = np.inf
    expected = np.pad(np.sort(expected, axis=1)[:, :k], [(0, 0), (0, max(0, k - bank))], constant_values=np.inf)
    found, rows = nearest(
        x, y, k, metric=metric, weights_M=weights,
        query_blocks_N=x_blocks if blocked else None, bank_blocks_M=y_blocks if blocked else None,
        block_reach=1,
    )  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert ((rows >= 0) == np.isfinite(found)).all()


def test_knn_held_out_scores_are_leave_one_block_out() -> None:
    bank, blocks = clips(30).astype(np.float64), np.arange(30) // 3
    detector = create_detector("knn", {"neighbours": 2}).fit(bank, blocks_N=blocks)
    z = (bank - detector.mean_) / detector.scale_
    distances = cdist(z, z)
    distances[np.abs(blocks[:, None] - blocks) <= 1] = np.inf
    np.testing.assert_allclose(detector.train_scores_, np.sort(distances, axis=1)[:, :2].mean(axis=1))


def test_local_density_is_its_equation() -> None:
    bank, queries = clips(25).astype(np.float64), clips(6, seed=1).astype(np.float64)
    detector = create_detector("local_density", {"neighbours": 4, "exponent": 0.7, "space": "standard"}).fit(bank)
    z, q = (bank - detector.mean_) / detector.scale_, (queries - detector.mean_) / detector.scale_
    radius = np.sort(cdist(z, z), axis=1)[:, 1:5].mean(axis=1)
    expected = (cdist(q, z) * (np.median(radius) / radius) ** 0.7).min(axis=1)
    np.testing.assert_allclose(detector.score(queries), expected, rtol=1e-10)


def test_lof_is_scikit_learns() -> None:
    bank, queries = clips(40).astype(np.float64), clips(6, seed=1).astype(np.float64)
    detector = create_detector("lof", {"neighbours": 5}).fit(bank)
    scale = lambda rows: (rows - detector.mean_) / detector.scale_  # noqa: E731
    oracle = LocalOutlierFactor(n_neighbors=5, novelty=True).fit(scale(bank))
    np.testing.assert_allclose(detector.score(queries), -oracle.score_samples(scale(queries)))


@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (300, 7)])
def test_shrinkage_is_ledoit_and_wolfs(shape: tuple[int, int]) -> None:
    rows = clips(*shape).astype(np.float64)
    rows -= rows.mean(axis=0)
    oracle = LedoitWolf(assume_centered=True).fit(rows).shrinkage_
    assert ledoit_wolf_shrinkage(rows) == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize("count", [10, 500])
def test_whitening_is_a_power_of_the_shrunk_covariance(count: int) -> None:
    """The low-rank form for few clips and the full one for many agree with C^(-p/2) written out."""
    dimensions = 20
    bank = clips(count, dimensions).astype(np.float64)
    labels = np.array(["a", "b"])[np.arange(count) % 5 // 4]
    space = fit_space(bank, labels, "whitened")
    z = (bank - space.mean_D) / space.scale_D
    means = np.stack([z[labels == label].mean(axis=0) for label in ("a", "b")])
    within = z - means[(labels == "b").astype(int)]
    level, s = np.mean(within**2), max(ledoit_wolf_shrinkage(within), 0.01)
    delta = (means[1] - means[0])[:, None]
    covariance = ((1 - s) * within.T @ within / count + delta @ delta.T / 4) / level + s * np.eye(dimensions)
    values, vectors = np.linalg.eigh(covariance)
    power = np.sqrt(count / (count + dimensions))
    root = vectors * values ** (-power / 2)
    expected = cdist(z @ root, z @ root)
    np.testing.assert_allclose(cdist(space.apply(bank), space.apply(bank)), expected, rtol=1e-6, atol=1e-6)


def test_states_are_found_where_there_are_some() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [30, 20, 10])
    centres = rng.normal(size=(3, 8)) * 6
    found = find_states(centres[truth] + rng.normal(size=(60, 8)))
    np.testing.assert_array_equal(found, truth)
    assert find_states(rng.normal(size=(60, 8))).max() == 0
    assert find_states(np.ones((10, 3))).max() == 0

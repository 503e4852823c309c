"""Conformance of all registered detectors (`harken.detection.checks`), and the equations of each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import LocalOutlierFactor

from harken.core.errors import HarkenError
from harken.detection import AnomalyDetector, create_detector, list_detectors
from harken.detection.checks import CHECKS, Make, check_detector, clips, domains, duplicate_scores
from harken.detection.density import FLOOR, exit_sizes
from harken.detection.memory_bank import memory_bank, smote
from harken.detection.neighbours import Bank, nearest
from harken.detection.space import fit_space, ledoit_wolf_shrinkage
from harken.detection.states import find_states

EVERY = pytest.mark.parametrize("name", list_detectors())


@EVERY
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_detector_passes_its_checks(name: str, check: Callable[[Make], None]) -> None:
    check(lambda: create_detector(name))


@pytest.mark.parametrize("name", ["knn", "local_density"])
def test_near_duplicates_are_held_out_together_by_blocks(name: str) -> None:
    separate, together = duplicate_scores(lambda: create_detector(name))
    assert together > 10 * separate


class Distance(AnomalyDetector):
    """Passes every check; each class below fails one."""

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def _fit(self, bank_ND: np.ndarray, domains_N: np.ndarray) -> None:
        self.mean_ = bank_ND.mean(axis=0)

    def _score(self, queries_ND: np.ndarray) -> np.ndarray:
        return np.linalg.norm(queries_ND - self.mean_, axis=1) ** self.power


class StoresMore(Distance):
    def __init__(self, power: float = 1.0) -> None:
        super().__init__(power)
        self.extra = 1


class Inverted(Distance):
    def _score(self, queries_ND: np.ndarray) -> np.ndarray:
        return -super()._score(queries_ND)


class DependsOnOthers(Distance):
    def _score(self, queries_ND: np.ndarray) -> np.ndarray:
        scores_N = super()._score(queries_ND)
        return scores_N + 1e-9 * scores_N.mean()


class KeepsObjects(Distance):
    def _fit(self, bank_ND: np.ndarray, domains_N: np.ndarray) -> None:
        super()._fit(bank_ND, domains_N)
        self.first_ = {"row": bank_ND[0]}


class Biased(Distance):
    def _held_out(self, bank_ND: np.ndarray, domains_N: np.ndarray, blocks_N: np.ndarray) -> np.ndarray:
        return 0.5 * self._score(bank_ND)


class NeedsTenClips(Distance):
    def _fit(self, bank_ND: np.ndarray, domains_N: np.ndarray) -> None:
        super()._fit(bank_ND, domains_N)
        if len(bank_ND) < 10:
            raise RuntimeError("ten clips, please")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (StoresMore, r"stores each parameter.*It takes \['power'\] and stores \['extra', 'power'\]"),
        (Inverted, "score higher.*Median .* is below"),
        (DependsOnOthers, "independent of the clips scored.*together and alone differ by up to"),
        (KeepsObjects, "restored.*first_ is not a numeric array"),
        (Biased, "distributed like scores of new normal clips.*It is [3-9][0-9]%"),
        (NeedsTenClips, "fitted to three clips or more.*RuntimeError: ten clips, please"),
    ],
)
def test_a_failed_check_is_named(broken: type[AnomalyDetector], message: str) -> None:
    check_detector(Distance)
    with pytest.raises(AssertionError, match=f"{broken.__name__} fails a check: .*{message}"):
        check_detector(broken)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(HarkenError, match="mahalanobis"):
        create_detector("mahalonobis")
    with pytest.raises(HarkenError, match="neighbours"):
        create_detector("knn", {"neighbors": 3})


@given(
    queries=st.integers(1, 40), bank=st.integers(1, 60), k=st.integers(1, 20), seed=st.integers(0, 1000),
    metric=st.sampled_from(["euclidean", "cosine"]), weighted=st.booleans(), blocked=st.booleans(),
    shifted=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_nearest_is_exact(
    queries: int, bank: int, k: int, seed: int, metric: str, weighted: bool, blocked: bool, shifted: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(queries, 5)), rng.normal(size=(bank, 5))
    weights = rng.uniform(0.1, 3, bank) if weighted else None
    offsets = rng.normal(size=bank) if shifted else None
    x_blocks, y_blocks = rng.integers(0, 4, queries), rng.integers(0, 4, bank)
    expected = cdist(x, y, metric)
    if weights is not None:
        expected = expected * weights
    if offsets is not None:
        expected = expected + offsets
    if blocked:
        expected[np.abs(x_blocks[:, None] - y_blocks[None]) <= 1] = np.inf
    expected = np.pad(np.sort(expected, axis=1)[:, :k], [(0, 0), (0, max(0, k - bank))], constant_values=np.inf)
    distances, rows = nearest(
        x, y, k, metric=metric, weights_M=weights, offsets_M=offsets,
        query_blocks_N=x_blocks if blocked else None, bank_blocks_M=y_blocks if blocked else None,
        block_reach=1,
    )  # fmt: skip
    np.testing.assert_allclose(distances, expected, atol=1e-12)
    assert ((rows >= 0) == np.isfinite(distances)).all()


@pytest.mark.parametrize("spread", [1e-250, 1e-12, 1e-4, 1.0, 1e30])
@pytest.mark.parametrize("case", ["offset", "outlier", "far queries", "clones", "near clones"])
def test_nearest_is_exact_beyond_the_precision_of_float32(case: str, spread: float) -> None:
    rng = np.random.default_rng(0)
    bank, queries = spread * rng.normal(size=(300, 12)), spread * rng.normal(size=(40, 12))
    if case == "offset":
        bank, queries = bank + 1e3 * spread, queries + 1e3 * spread
    elif case == "outlier":
        bank[7] *= 1e6
    elif case == "far queries":
        queries = 1e4 * queries
    else:
        apart = 1e-8 if case == "near clones" else 0.0
        bank[100:] = bank[rng.integers(20, size=200)] * (1 + apart * np.arange(200))[:, None]
    weights = rng.uniform(0.5, 2, 300)
    distances, _ = nearest(queries, Bank(bank), 3, weights_M=weights)
    expected = cdist(queries, bank) * weights
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :3], rtol=1e-12)
    alone = [nearest(query[None], bank, 3, weights_M=weights)[0][0] for query in queries]
    np.testing.assert_array_equal(distances, alone)


def test_knn_held_out_scores_are_leave_one_block_out() -> None:
    bank, blocks = clips(30).astype(np.float64), np.arange(30) // 3
    detector = create_detector("knn", {"neighbours": 2}).fit(bank, blocks_N=blocks)
    z = (bank - detector.mean_) / detector.scale_
    distances = cdist(z, z)
    distances[np.abs(blocks[:, None] - blocks) <= 1] = np.inf
    np.testing.assert_allclose(detector.train_scores_, np.sort(distances, axis=1)[:, :2].mean(axis=1))


def test_local_density_follows_its_equation() -> None:
    bank, queries = clips(25).astype(np.float64), clips(6, seed=1).astype(np.float64)
    detector = create_detector("local_density", {"neighbours": 4, "exponent": 0.7, "space": "standard"}).fit(bank)
    z, q = (bank - detector.mean_) / detector.scale_, (queries - detector.mean_) / detector.scale_
    radius = np.sort(cdist(z, z), axis=1)[:, 1:5].mean(axis=1)
    expected = (cdist(q, z) * (np.median(radius) / radius) ** 0.7).min(axis=1)
    np.testing.assert_allclose(detector.score(queries), expected, rtol=1e-10)


def test_density_comes_from_other_blocks() -> None:
    """Clips that are alike because they are close in time do not make their surroundings dense."""
    rng = np.random.default_rng(0)
    alone = rng.normal(size=(40, 6))
    runs = np.repeat(rng.normal(size=(10, 6)), 4, axis=0) + 0.05 * rng.normal(size=(40, 6))
    bank, blocks = np.concatenate([alone, runs]), np.concatenate([2 * np.arange(40), 100 + np.arange(40) // 4])
    parameters = {"neighbours": 3, "exponent": 1.0, "space": "standard"}
    detector = create_detector("local_density", parameters).fit(bank, blocks_N=blocks)
    z, queries = (bank - detector.mean_) / detector.scale_, rng.normal(size=(9, 6))
    distance = cdist(z, z)
    distance[blocks[:, None] == blocks] = np.inf
    radius = np.sort(distance, axis=1)[:, :3].mean(axis=1)
    query_distance = cdist((queries - detector.mean_) / detector.scale_, z)
    np.testing.assert_allclose(detector.score(queries), (query_distance * np.median(radius) / radius).min(axis=1))
    assert np.median(radius[40:]) > 0.5 * np.median(radius[:40])
    # The same holds within a fusion, and where folds leave one block only.
    fused = create_detector("fusion", {"members": [{"detector": "local_density", "parameters": parameters}]})
    np.testing.assert_array_equal(fused.fit(bank, blocks_N=blocks)._members[0].weights_, detector.weights_)
    two = create_detector("local_density").fit(bank[40:48], blocks_N=blocks[40:48])
    assert np.isfinite(two.train_scores_).all()


def labelled(count: int, targets: int) -> np.ndarray:
    """Domain labels, the last `targets` of them `target`."""
    return np.where(np.arange(count) < count - targets, "source", "target")


# Variants of the detectors with options, for the checks that options could break.
VARIANTS = pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("knn", {"bank": "target"}),
        ("knn", {"bank": "kmeans", "metric": "cosine"}),
        ("knn", {"oversample": "smote", "banks": "separate"}),
        ("ldn", {"neighbours": 1, "form": "difference", "space": "raw"}),
        ("ldn", {"neighbours": "auto", "domain_wise": True}),
        ("ldn", {"domain_wise": True, "source_neighbours": 16, "target_neighbours": 9}),
        ("ldn", {"bank": "target", "oversample": "smote", "space": "standard"}),
        ("ldn", {"bank": "kmeans", "oversample": "smote", "metric": "cosine", "space": "standard"}),
        ("local_density", {"space": "raw"}),
        ("varmin", {"neighbours": 1, "domain_wise": False, "space": "standard"}),
        ("varmin", {"metric": "cosine", "space": "standard"}),
        ("beam", {"bands": 3, "view": "max", "neighbours": 4}),
        ("beam", {"bands": 100, "view": "dual", "metric": "cosine", "space": "whitened"}),
        ("fusion", {"members": ["gmm", {"detector": "ldn", "parameters": {"space": "standard"}}], "rule": "mean"}),
        ("fusion", {"members": [{"detector": "fusion", "parameters": {"members": ["knn"]}}, "beam"]}),
    ],
)


@VARIANTS
def test_every_variant_passes_the_checks(name: str, parameters: dict[str, object]) -> None:
    bank, labels, blocks = clips(), np.array(domains(60)), np.arange(60) // 2
    order = np.random.default_rng(3).permutation(60)
    detector = create_detector(name, parameters).fit(bank, labels, blocks)
    reordered = create_detector(name, parameters).fit(bank[order], labels[order], blocks[order])
    queries = clips(20, seed=1)
    scores = detector.score(queries)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, reordered.score(queries))
    np.testing.assert_array_equal(detector.train_scores_[order], reordered.train_scores_)
    np.testing.assert_array_equal(scores, [detector.score(row[None])[0] for row in queries])
    for key in set(detector.state()) - {"train_scores_"}:
        assert detector.state()[key].tobytes() == reordered.state()[key].tobytes()
    restored = create_detector(name, detector.get_params()).restored(detector.state())
    np.testing.assert_array_equal(scores, restored.score(queries))


@VARIANTS
@pytest.mark.parametrize("targets", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [4, 30])
def test_every_variant_accepts_few_target_clips(
    name: str, parameters: dict[str, object], count: int, targets: int
) -> None:
    for bank in (clips(count), np.repeat(clips(count // 2), 2, axis=0), np.ones((count, 4), np.float32)):
        detector = create_detector(name, parameters).fit(bank, labelled(count, targets))
        assert np.isfinite(detector.train_scores_).all()
        assert np.isfinite(detector.score(bank + 1)).all()
        assert np.isfinite(detector.score(bank)).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("form", ["ratio", "difference"])
@pytest.mark.parametrize("domain_wise", [False, True])
def test_ldn_follows_its_equation(metric: str, form: str, domain_wise: bool) -> None:
    bank, queries, labels = clips(25).astype(np.float64), clips(6, seed=1).astype(np.float64), labelled(25, 6)
    parameters = {"neighbours": 4, "form": form, "space": "raw", "metric": metric, "domain_wise": domain_wise}
    if domain_wise:
        parameters |= {"source_neighbours": 3, "target_neighbours": 2}
    detector = create_detector("ldn", parameters).fit(bank, labels)
    radius = []
    for row, label in zip(bank, labels, strict=True):
        others = bank[labels == label] if domain_wise else bank
        count = 4 if not domain_wise else 3 if label == "source" else 2
        radius.append(np.sort(cdist(row[None], others, metric)[0])[1 : count + 1].mean())
    distance = cdist(queries, bank, metric)
    expected = distance / radius if form == "ratio" else distance - radius
    np.testing.assert_allclose(detector.score(queries), expected.min(axis=1), rtol=1e-9)


def test_local_density_with_exponent_one_is_ldn_times_the_median_radius() -> None:
    density = create_detector("local_density", {"exponent": 1.0}).fit(clips(), domains(60))
    ldn = create_detector("ldn").fit(clips(), domains(60))
    queries = clips(9, seed=1)
    np.testing.assert_allclose(density.score(queries) / ldn.score(queries), np.median(ldn.radius_), rtol=1e-9)


def test_neighbourhoods_end_where_their_cluster_ends() -> None:
    """Clusters of 4 and of 30: three neighbours in the first, the maximum in the second."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(4, 6)), 40 + rng.normal(size=(30, 6))])
    distances = np.sort(cdist(rows, rows), axis=1)[:, 1:18]
    sizes = exit_sizes(distances, 16)
    np.testing.assert_array_equal(sizes[:4], 3)
    assert np.mean(sizes[4:] == 16) > 0.9
    assert (exit_sizes(distances[:, :2], 16) <= 2).all()
    np.testing.assert_array_equal(exit_sizes(distances[:, :1], 16), 1)
    np.testing.assert_array_equal(exit_sizes(np.zeros((5, 4)), 3), 3)


def test_varmin_finds_the_power_of_least_variance() -> None:
    """Against a search over all powers with explicit leave-one-out scores."""
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(40, 3)) * np.exp(rng.normal(size=(40, 1)))
    detector = create_detector("varmin", {"neighbours": 3, "space": "raw"}).fit(bank)
    variance = {}
    for power in np.linspace(0, 1, 41):
        scores = []
        for x in range(40):
            others = np.delete(bank, x, axis=0)
            radius = np.sort(cdist(others, others), axis=1)[:, 1:4].mean(axis=1)
            radius = np.maximum(radius, 0.05 * np.median(radius))
            scores.append((np.log(cdist(bank[[x]], others)[0]) - power * np.log(radius)).min())
        variance[power] = np.var(scores)
    assert detector.exponent_ == pytest.approx([min(variance, key=variance.get)])


def test_varmin_levels_domains_of_different_scale() -> None:
    rng = np.random.default_rng(0)
    bank = np.concatenate([rng.normal(size=(60, 8)), 100 + 10 * rng.normal(size=(60, 8))])
    new = np.concatenate([rng.normal(size=(60, 8)), 100 + 10 * rng.normal(size=(60, 8))])
    detector = create_detector("varmin", {"space": "raw"}).fit(bank, labelled(120, 60))
    scores = np.log(detector.score(new))
    assert abs(scores[:60].mean() - scores[60:].mean()) < 0.1
    plain = np.log(create_detector("local_density", {"exponent": 0.0, "space": "raw"}).fit(bank).score(new))
    assert plain[60:].mean() - plain[:60].mean() > 2


def test_each_band_has_its_own_nearest_neighbour() -> None:
    """A mixture of two training clips is normal in each band."""
    bank = clips(30).astype(np.float64)
    mixed = np.concatenate([bank[:1, :6], bank[1:2, 6:]], axis=1)
    detector = create_detector("beam", {"bands": 2}).fit(bank)
    assert detector.score(mixed)[0] < 1e-9
    assert create_detector("knn").fit(bank).score(mixed)[0] > 0.1


@pytest.mark.parametrize("neighbours", [0, 3])
def test_beam_follows_its_equation(neighbours: int) -> None:
    bank, queries = clips(25).astype(np.float64), clips(6, seed=1).astype(np.float64)
    columns = []
    for band in (slice(0, 4), slice(4, 8), slice(8, 12)):
        radius = np.sort(cdist(bank[:, band], bank[:, band]), axis=1)[:, 1:4].mean(axis=1) if neighbours else 1.0
        columns.append((cdist(queries[:, band], bank[:, band]) / radius).min(axis=1))
    views = {"mean": np.mean(columns, axis=0), "max": np.max(columns, axis=0)}
    for view, expected in views.items():
        parameters = {"bands": 3, "view": view, "neighbours": neighbours, "space": "raw"}
        detector = create_detector("beam", parameters).fit(bank)
        np.testing.assert_allclose(detector.score(queries), expected, rtol=1e-9)
    dual = create_detector("beam", parameters | {"view": "dual"}).fit(bank)
    z = [(views[name] - dual.location_[i]) / dual.spread_[i] for i, name in enumerate(("mean", "max"))]
    np.testing.assert_allclose(dual.score(queries), z[0] + z[1], rtol=1e-9)


def test_smote_draws_target_clips_between_target_clips() -> None:
    rows, labels = clips(30), labelled(30, 5)
    grown, grown_labels = smote(rows, labels, seed=0)
    assert (grown_labels == "target").sum() == 25 == (grown_labels == "source").sum()
    np.testing.assert_array_equal(grown[:30], rows)
    target = rows[25:]
    for row in grown[30:]:
        detour = cdist(row[None], target) + cdist(row[None], target).T
        assert np.min(np.where(np.eye(5, dtype=bool), np.inf, detour - cdist(target, target))) < 1e-4
    np.testing.assert_array_equal(grown, smote(rows, labels, seed=0)[0])
    assert not np.array_equal(grown, smote(rows, labels, seed=1)[0])


@pytest.mark.parametrize("targets", [0, 1])
def test_smote_skips_domains_of_one_clip(targets: int) -> None:
    assert len(smote(clips(9), labelled(9, targets), seed=0)[0]) == 9


def test_banks() -> None:
    rows, labels = clips(60).astype(np.float64), labelled(60, 5)
    options = {"oversample": None, "clusters": 7, "metric": "euclidean", "seed": 0}
    every, kept = memory_bank(rows, labels, bank="all", **options)
    assert every is rows
    assert kept is labels
    target, kept = memory_bank(rows, labels, bank="target", **options)
    np.testing.assert_array_equal(target, rows[55:])
    assert set(kept) == {"target"}
    centres, kept = memory_bank(rows, labels, bank="kmeans", **options)
    assert list(kept) == ["source"] * 7 + ["target"] * 5
    np.testing.assert_array_equal(centres[7:], rows[55:])
    assert len(memory_bank(rows, np.full(60, "a"), bank="target", **options)[0]) == 60
    grown = memory_bank(rows, labels, bank="target", **(options | {"oversample": "smote"}))[0]
    assert len(grown) == 55
    for name in ("ldn", "knn"):
        with pytest.raises(ValueError, match="unknown bank"):
            create_detector(name, {"bank": "some"}).fit(rows)
        with pytest.raises(ValueError, match="unknown oversample"):
            create_detector(name, {"oversample": "adasyn"}).fit(rows)


def test_fusion_is_the_minimum_or_mean_standardised_score() -> None:
    bank, queries = clips(), clips(9, seed=1)
    names = ["knn", "mahalanobis"]
    standardised = []
    for name in names:
        member = create_detector(name).fit(bank, domains(60))
        standardised.append((member.score(queries) - member.train_scores_.mean()) / member.train_scores_.std())
    for rule, joined in (("min", np.min), ("mean", np.mean)):
        detector = create_detector("fusion", {"members": names, "rule": rule}).fit(bank, domains(60))
        np.testing.assert_allclose(detector.score(queries), joined(standardised, axis=0), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("ldn", {"neighbours": 0}, "at least 1"),
        ("ldn", {"neighbours": "some"}, "auto"),
        ("ldn", {"source_neighbours": 3}, "domain_wise"),
        ("ldn", {"form": "sum"}, "unknown form"),
        ("ldn", {"space": "curved"}, "unknown space"),
        ("varmin", {"neighbours": 0}, "at least 1"),
        ("beam", {"view": "median"}, "unknown view"),
        ("beam", {"bands": 0}, "bands"),
        ("fusion", {"members": []}, "at least one"),
        ("fusion", {"members": "knn"}, "list"),
        ("fusion", {"members": [{"name": "knn"}]}, "not name"),
        ("fusion", {"rule": "max"}, "unknown rule"),
    ],
)
def test_invalid_parameters_are_refused(name: str, parameters: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        create_detector(name, parameters).fit(clips(), domains(60))


def test_lof_equals_scikit_learn() -> None:
    bank, queries = clips(40).astype(np.float64), clips(6, seed=1).astype(np.float64)
    detector = create_detector("lof", {"neighbours": 5}).fit(bank)
    scale = lambda rows: (rows - detector.mean_) / detector.scale_  # noqa: E731
    oracle = LocalOutlierFactor(n_neighbors=5, novelty=True).fit(scale(bank))
    np.testing.assert_allclose(detector.score(queries), -oracle.score_samples(scale(queries)))


def test_identical_clips_do_not_make_lof_explode() -> None:
    """Thirty copies of one clip among others: their density is bounded, and so are scores beside them."""
    bank = np.concatenate([clips(100), np.repeat(clips(1, seed=3), 30, axis=0)])
    detector = create_detector("lof").fit(bank)
    normal = detector.score(np.concatenate([clips(50, seed=1), bank[-1:] + 1e-3]))
    assert np.median(normal) < 1.5
    assert normal.max() < 1.5 / FLOOR
    assert create_detector("lof").fit(np.repeat(bank[:1], 30, axis=0)).score(bank[:1] + 1e-3)[0] == 1


@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (300, 7)])
def test_shrinkage_equals_ledoit_wolf(shape: tuple[int, int]) -> None:
    rows = clips(*shape).astype(np.float64)
    rows -= rows.mean(axis=0)
    oracle = LedoitWolf(assume_centered=True).fit(rows).shrinkage_
    assert ledoit_wolf_shrinkage(rows) == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize("count", [10, 500])
def test_whitening_is_a_power_of_the_shrunk_covariance(count: int) -> None:
    """The low-rank form for few clips and the full one for many agree with C^(-p/2)."""
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


def test_separated_states_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [30, 20, 10])
    centres = rng.normal(size=(3, 8)) * 6
    states = find_states(centres[truth] + rng.normal(size=(60, 8)))
    np.testing.assert_array_equal(states, truth)
    assert find_states(rng.normal(size=(60, 8))).max() == 0
    assert find_states(np.ones((10, 3))).max() == 0


def test_nearest_neighbour_of_raw_embeddings_by_cosine() -> None:
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(30, 7)) + 3, rng.normal(size=(5, 7)) + 3
    scores = create_detector("knn", {"space": "raw", "metric": "cosine"}).fit(bank).score(queries)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, bank)]
    np.testing.assert_allclose(scores, 1 - (unit[0] @ unit[1].T).max(axis=1), atol=1e-12)
    with pytest.raises(ValueError, match="unknown space"):
        create_detector("knn", {"space": "cooked"}).fit(bank)

"""Conformance checks of detectors, built-in and custom.

Each check takes a factory of unfitted detectors, and raises AssertionError where the property in its docstring fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.core.conformance import check_all, require, require_refusal
from harken.detection import create_detector
from harken.detection.base import AnomalyDetector

Make = Callable[[], AnomalyDetector]
#: scores above are of no use: rounding was divided by rounding
_SANE = 1e7


def check_detector(detector: str | type[AnomalyDetector], parameters: Mapping[str, Any] | None = None) -> None:
    """Run all `CHECKS`; raises AssertionError for the first that fails, with the reason.

    detector: a class, or any name accepted by `create_detector`.
    """

    def make() -> AnomalyDetector:
        if isinstance(detector, str):
            return create_detector(detector, parameters)
        return detector(**(parameters or {}))

    name = detector if isinstance(detector, str) else detector.__name__
    check_all(name, CHECKS, make)


def parameters_are_kept(make: Make) -> None:
    """The constructor stores each parameter under its name, and nothing else."""
    detector = make()
    stored, accepted = set(vars(detector)), set(detector.get_params())
    require(stored == accepted, f"It takes {sorted(accepted)} and stores {sorted(stored)}.")
    require(type(detector)(**detector.get_params()).get_params() == detector.get_params(), "A copy differs.")


def anomalies_score_higher(make: Make) -> None:
    """Clips far from all normal clips score higher; scores are finite float64 and differ from clip to clip."""
    detector = make().fit(clips(), domains(60))
    normal_N, anomaly_N = detector.score(clips(40, seed=1)), detector.score(clips(40, seed=2) + 15)
    require(np.shape(normal_N) == (40,), f"40 clips give scores of shape {np.shape(normal_N)}.")
    require(normal_N.dtype == np.float64, f"Scores are {normal_N.dtype}.")
    require(bool(np.isfinite(normal_N).all()), "Some are not finite.")
    require(
        bool(np.median(anomaly_N) > normal_N.max()),
        f"Median {np.median(anomaly_N):.3g} is below {normal_N.max():.3g}.",
    )
    require(len(np.unique(normal_N)) == 40, f"40 clips have {len(np.unique(normal_N))} different scores.")


def scores_do_not_depend_on_other_clips(make: Make) -> None:
    """The score of a clip is bitwise independent of the clips scored in the same call."""
    detector = make().fit(clips())
    queries_ND = clips(30, seed=1)
    together_N = detector.score(queries_ND)
    alone_N = np.array([detector.score(row_D[None])[0] for row_D in queries_ND])
    same(together_N, alone_N, "together and alone")
    same(together_N, detector.score(queries_ND[::-1])[::-1], "in order and reversed")


def scores_do_not_depend_on_held_out_ones(make: Make) -> None:
    """`fit_to_score` gives the scores of `fit`; a detector that needs held-out scores says so in a class attribute."""
    fitted, to_score = make().fit(clips(), domains(60)), make().fit_to_score(clips(), domains(60))
    queries_ND = clips(30, seed=1)
    same(fitted.score(queries_ND), to_score.score(queries_ND), "after fit and fit_to_score")


def scores_do_not_depend_on_order(make: Make) -> None:
    """Scores are bitwise independent of the order of the training clips."""
    bank_ND, labels_N, blocks_N = clips(), np.array(domains(60)), np.arange(60) // 2
    order_N = np.random.default_rng(3).permutation(60)
    detector = make().fit(bank_ND, labels_N, blocks_N)
    reordered = make().fit(bank_ND[order_N], labels_N[order_N], blocks_N[order_N])
    same(detector.score(clips(9, seed=1)), reordered.score(clips(9, seed=1)), "in two orders")
    same(detector.train_scores_[order_N], reordered.train_scores_, "of training clips, in two orders")


def state_is_arrays(make: Make) -> None:
    """Two fits are bitwise equal, and a detector `restored` from the arrays of `state` gives the same scores."""
    first, second = (make().fit(clips(), domains(60)) for _ in range(2))
    for key, array in first.state().items():
        require(array.dtype != object, f"{key} is not a numeric array.")
        require(array.tobytes() == second.state()[key].tobytes(), f"{key} differs.")
    restored = type(first)(**first.get_params()).restored(first.state())
    same(first.score(clips(9, seed=1)), restored.score(clips(9, seed=1)), "fitted and restored")


def held_out_scores_are_unbiased(make: Make) -> None:
    """`train_scores_` are distributed like scores of new normal clips: 10% of these exceed 90% of those."""
    detector = make().fit(clips(200))
    share = np.mean(detector.score(clips(400, seed=5)) > np.quantile(detector.train_scores_, 0.9))
    require(bool(0.03 < share < 0.2), f"It is {share:.0%}.")


def blocks_are_held_out_together(make: Make) -> None:
    """Clips of one block are held out together for `train_scores_`."""
    separate, together = duplicate_scores(make)
    require(
        together > 0.95 * separate,
        f"Near duplicates score {together:.3g} held out together, {separate:.3g} separately.",
    )


def few_clips_suffice(make: Make) -> None:
    """It can be fitted to three clips or more, to duplicates and to constants; all scores are finite."""
    for count in (3, 4, 11):
        for bank_ND in (clips(count), np.concatenate([clips(count)] * 2), np.ones((count, 4), np.float32)):
            detector = make().fit(bank_ND, ["a", "b"] + ["a"] * (len(bank_ND) - 2))
            for scores_N in (detector.train_scores_, detector.score(bank_ND + 1)):
                require(bool(np.isfinite(scores_N).all()), f"Some of {len(bank_ND)} clips are not finite.")


def degenerate_clips_have_sane_scores(make: Make) -> None:
    """Identical clips, identical ones but for rounding, all but one of them, pairs, and constant dimensions: scores of
    normal clips and of others a few units away are finite and of a usual size, and those far away score highest."""
    bank_ND = clips(40)
    alike_ND = np.repeat(bank_ND[:1], 30, axis=0)
    constant_ND = bank_ND.copy()
    constant_ND[:, ::3] = 7.0
    for name, normal_ND in {
        "identical": alike_ND,
        "identical but for rounding": np.where(clips(30, seed=4) > 0, alike_ND, np.nextafter(alike_ND, np.float32(0))),
        "all but one identical": np.concatenate([alike_ND, bank_ND[1:2]]),
        "mostly identical": np.concatenate([alike_ND, bank_ND[1:16]]),
        "in pairs": np.concatenate([bank_ND[:20]] * 2),
        "with constant dimensions": constant_ND,
    }.items():
        detector = make().fit(normal_ND)
        near_N, far_N = detector.score(normal_ND), detector.score(normal_ND + 20)
        for scores_N in (detector.train_scores_, near_N, far_N):
            largest = float(np.abs(scores_N).max())
            require(bool(np.isfinite(scores_N).all() and largest < _SANE), f"Of clips {name} some score {largest:.2g}.")
        require(bool(far_N.min() > near_N.max()), f"Clips far from clips {name} score {far_N.min():.3g} only.")


def invalid_input_is_refused(make: Make) -> None:
    """ValueError for input that is not finite or of another shape, and for scoring before fitting."""
    for bad in (np.ones(5), np.ones((1, 5)), np.full((5, 2), np.nan), np.ones((5, 0))):
        require_refusal(partial(make().fit, bad), f"{bad.shape} was accepted.", "expected", "finite")
    require_refusal(partial(make().score, np.ones((2, 2))), "It scored before fitting.", "not fitted")
    fitted = make().fit(clips())
    require_refusal(partial(fitted.score, np.ones((2, 3))), "It scored other dimensions.", "expected")


#: all checks, fastest first
CHECKS: tuple[Callable[[Make], None], ...] = (
    parameters_are_kept,
    anomalies_score_higher,
    scores_do_not_depend_on_other_clips,
    scores_do_not_depend_on_held_out_ones,
    scores_do_not_depend_on_order,
    state_is_arrays,
    invalid_input_is_refused,
    few_clips_suffice,
    degenerate_clips_have_sane_scores,
    held_out_scores_are_unbiased,
    blocks_are_held_out_together,
)


def clips(count: int = 60, dimensions: int = 12, seed: int = 0) -> NDArray[np.float32]:
    """(count, dimensions) embeddings of simulated normal clips: correlated, Gaussian."""
    rng = np.random.default_rng(seed)
    mixing_DD = np.random.default_rng(99).normal(size=(dimensions, dimensions))
    return np.asarray(rng.normal(size=(count, dimensions)) @ mixing_DD, dtype=np.float32)


def domains(count: int) -> list[str]:
    """Domain labels, every seventh `target`."""
    return ["target" if i % 7 == 3 else "source" for i in range(count)]


def duplicate_scores(make: Make) -> tuple[float, float]:
    """Median held-out score of thirty clips with near duplicates, held out separately and together."""
    bank_ND = np.concatenate([clips(30)] * 2)
    bank_ND += np.random.default_rng(0).normal(scale=1e-4, size=bank_ND.shape).astype(np.float32)
    separate_N = make().fit(bank_ND).train_scores_
    together_N = make().fit(bank_ND, blocks_N=2 * (np.arange(60) % 30)).train_scores_
    return float(np.median(separate_N)), float(np.median(together_N))


def same(first: ArrayLike, second: ArrayLike, case: str) -> None:
    """AssertionError unless two arrays are bitwise equal."""
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise AssertionError(f"Shapes {case}: {first.shape} and {second.shape}.")
    if not np.array_equal(first, second):
        raise AssertionError(f"Scores {case} differ by up to {np.abs(first - second).max():.2g}.")

"""What every detector does, as checks: of those that Harken has, and of one's own.

Each check takes a function that makes an unfitted detector, and raises AssertionError where its promise is broken.
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


def check_detector(detector: str | type[AnomalyDetector], parameters: Mapping[str, Any] | None = None) -> None:
    """Raise AssertionError, saying which promise is broken and how, unless the detector keeps all of `CHECKS`.

    detector: a class, or any name that `create_detector` takes.
    """

    def make() -> AnomalyDetector:
        if isinstance(detector, str):
            return create_detector(detector, parameters)
        return detector(**(parameters or {}))

    name = detector if isinstance(detector, str) else detector.__name__
    check_all(name, CHECKS, make)


def parameters_are_kept(make: Make) -> None:
    """Its constructor stores each parameter under its own name, and nothing else."""
    detector = make()
    stored, known = set(vars(detector)), set(detector.get_params())
    require(stored == known, f"It takes {sorted(known)} and stores {sorted(stored)}.")
    require(type(detector)(**detector.get_params()).get_params() == detector.get_params(), "A copy differs.")


def anomalies_score_higher(make: Make) -> None:
    """Clips far from all normal ones score higher; scores are finite, float64, and differ from clip to clip."""
    detector = make().fit(clips(), domains(60))
    normal_N, odd_N = detector.score(clips(40, seed=1)), detector.score(clips(40, seed=2) + 15)
    require(np.shape(normal_N) == (40,), f"40 clips give scores of shape {np.shape(normal_N)}.")
    require(normal_N.dtype == np.float64, f"Scores are {normal_N.dtype}.")
    require(bool(np.isfinite(normal_N).all()), "Some are not finite.")
    require(bool(np.median(odd_N) > normal_N.max()), f"Median {np.median(odd_N):.3g} is below {normal_N.max():.3g}.")
    require(len(np.unique(normal_N)) == 40, f"40 clips have {len(np.unique(normal_N))} different scores.")


def company_does_not_matter(make: Make) -> None:
    """A clip's score is the same to the last bit whatever clips are scored with it."""
    detector = make().fit(clips())
    queries_ND = clips(30, seed=1)
    together_N = detector.score(queries_ND)
    alone_N = np.array([detector.score(row_D[None])[0] for row_D in queries_ND])
    same(together_N, alone_N, "together and alone")
    same(together_N, detector.score(queries_ND[::-1])[::-1], "in order and reversed")


def order_does_not_matter(make: Make) -> None:
    """Scores are the same to the last bit in whatever order the training clips are given."""
    bank_ND, labels_N, blocks_N = clips(), np.array(domains(60)), np.arange(60) // 2
    order_N = np.random.default_rng(3).permutation(60)
    one = make().fit(bank_ND, labels_N, blocks_N)
    other = make().fit(bank_ND[order_N], labels_N[order_N], blocks_N[order_N])
    same(one.score(clips(9, seed=1)), other.score(clips(9, seed=1)), "in two orders")
    same(one.train_scores_[order_N], other.train_scores_, "of training clips, in two orders")


def state_is_arrays(make: Make) -> None:
    """Fitted twice it is the same to the last bit, and `restored` from the arrays of `state` it scores the same."""
    one, other = (make().fit(clips(), domains(60)) for _ in range(2))
    for key, array in one.state().items():
        require(array.dtype != object, f"{key} is no array of numbers.")
        require(array.tobytes() == other.state()[key].tobytes(), f"{key} differs.")
    restored = type(one)(**one.get_params()).restored(one.state())
    same(one.score(clips(9, seed=1)), restored.score(clips(9, seed=1)), "fitted and restored")


def held_out_scores_are_honest(make: Make) -> None:
    """`train_scores_` are like scores of new normal clips: a tenth of these is above nine tenths of those."""
    detector = make().fit(clips(200))
    share = np.mean(detector.score(clips(400, seed=5)) > np.quantile(detector.train_scores_, 0.9))
    require(bool(0.03 < share < 0.2), f"It is {share:.0%}.")


def blocks_are_held_out_together(make: Make) -> None:
    """Clips of one block do not vouch for each other in `train_scores_`."""
    fooled, honest = twin_scores(make)
    require(honest > 0.95 * fooled, f"Twins score {honest:.3g} held out together, {fooled:.3g} one by one.")


def few_clips_are_enough(make: Make) -> None:
    """It learns from three clips on, and from duplicates and constants; all scores are finite."""
    for count in (3, 4, 11):
        for bank_ND in (clips(count), np.concatenate([clips(count)] * 2), np.ones((count, 4), np.float32)):
            detector = make().fit(bank_ND, ["a", "b"] + ["a"] * (len(bank_ND) - 2))
            for scores_N in (detector.train_scores_, detector.score(bank_ND + 1)):
                require(bool(np.isfinite(scores_N).all()), f"Of {len(bank_ND)} clips, some are not finite.")


def unusable_input_is_refused(make: Make) -> None:
    """ValueError for input that is not finite or of another shape, and for scoring before fitting."""
    for bad in (np.ones(5), np.ones((1, 5)), np.full((5, 2), np.nan), np.ones((5, 0))):
        require_refusal(partial(make().fit, bad), f"{bad.shape} was taken.", "expected", "finite")
    require_refusal(partial(make().score, np.ones((2, 2))), "It scored unfitted.", "not fitted")
    fitted = make().fit(clips())
    require_refusal(partial(fitted.score, np.ones((2, 3))), "It scored other dimensions.", "expected")


#: every check, the quick ones first
CHECKS: tuple[Callable[[Make], None], ...] = (
    parameters_are_kept,
    anomalies_score_higher,
    company_does_not_matter,
    order_does_not_matter,
    state_is_arrays,
    unusable_input_is_refused,
    few_clips_are_enough,
    held_out_scores_are_honest,
    blocks_are_held_out_together,
)


def clips(count: int = 60, dimensions: int = 12, seed: int = 0) -> NDArray[np.float32]:
    """(count, dimensions) embeddings of normal clips: correlated, Gaussian."""
    rng = np.random.default_rng(seed)
    mixing_DD = np.random.default_rng(99).normal(size=(dimensions, dimensions))
    return np.asarray(rng.normal(size=(count, dimensions)) @ mixing_DD, dtype=np.float32)


def domains(count: int) -> list[str]:
    """Labels of which every seventh is target."""
    return ["target" if i % 7 == 3 else "source" for i in range(count)]


def twin_scores(make: Make) -> tuple[float, float]:
    """Median held-out score of thirty clips that are there twice: each left out alone, and with its twin."""
    bank_ND = np.concatenate([clips(30)] * 2)
    bank_ND += np.random.default_rng(0).normal(scale=1e-4, size=bank_ND.shape).astype(np.float32)
    fooled_N = make().fit(bank_ND).train_scores_
    honest_N = make().fit(bank_ND, blocks_N=2 * (np.arange(60) % 30)).train_scores_
    return float(np.median(fooled_N)), float(np.median(honest_N))


def same(one: ArrayLike, other: ArrayLike, what: str) -> None:
    """AssertionError unless two arrays are the same to the last bit."""
    first, second = np.asarray(one), np.asarray(other)
    if first.shape != second.shape:
        raise AssertionError(f"Shapes {what}: {first.shape} and {second.shape}.")
    if not np.array_equal(first, second):
        raise AssertionError(f"Scores {what} differ by up to {np.abs(first - second).max():.2g}.")

"""Checks of every search for weights, Harken's and custom ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harken.core.conformance import check_all, require
from harken.ensemble.custom import Search
from harken.ensemble.objective import Objective, make_boards
from harken.ensemble.problem import search_of
from harken.ensemble.search import SearchSettings, uniform
from harken.evaluation.rules import SectionScores

Float64 = NDArray[np.float64]
Find = Callable[[Objective, SearchSettings], Float64]

SETTINGS = SearchSettings(trials=20)


def check_search(search: str | type[Search]) -> None:
    """Raise AssertionError, saying which check fails and how, unless the search passes all of `CHECKS`.

    search: a class, or a method of `harken ensemble fit` that uses labels.
    """
    find = search_of(search) if isinstance(search, str) else search().weights
    check_all(search if isinstance(search, str) else search.__name__, CHECKS, find)


def weights_are_weights(find: Find) -> None:
    """One finite weight per member, none below zero, not all zero; for a single member too."""
    for members in (1, 2, 4):
        weights_M = np.asarray(find(objective(members), SETTINGS))
        require(weights_M.shape == (members,), f"{members} members have weights of shape {weights_M.shape}.")
        require(bool(np.isfinite(weights_M).all() and (weights_M >= 0).all()), f"They are {weights_M}.")
        require(bool(weights_M.sum() > 0), "They are all zero.")


def the_same_scores_give_the_same(find: Find) -> None:
    """The same members give the same weights to the last bit."""
    first_M, second_M = (np.asarray(find(objective(4), SETTINGS)) for _ in range(2))
    require(np.array_equal(first_M, second_M), f"They are {first_M} and {second_M}.")


def labels_help(find: Find) -> None:
    """Where one member separates anomalies and six do not, the mix scores higher than the plain mean."""
    board = objective(7)
    fitted, even = board(np.stack([np.asarray(find(board, SETTINGS)), uniform(7)]))
    require(bool(fitted > even), f"It scores {fitted:.3f}, the plain mean {even:.3f}.")


CHECKS: tuple[Callable[[Find], None], ...] = (weights_are_weights, the_same_scores_give_the_same, labels_help)


def objective(members: int) -> Objective:
    """Official score of mixes of members, of which the last separates the anomalies of two machines."""
    rng = np.random.default_rng(0)
    anomaly_N = np.arange(40) % 2 == 1
    scores, labels = [], []
    for machine in ("fan", "valve"):
        scores_MN = rng.normal(size=(members, 40))
        scores_MN[-1] += 2.0 * anomaly_N
        scores.append(scores_MN)
        names = tuple(f"{machine} {row}" for row in range(40))
        labels.append(SectionScores(machine, "00", names, scores_MN[0], anomaly_N, np.arange(40) // 2 % 2))
    return Objective(make_boards(scores, labels, "domain_generalization"))

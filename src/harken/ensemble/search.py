"""Searches for weights: uniform, the best few members, greedy, grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.ensemble.objective import Objective

Float64 = NDArray[np.float64]

#: weightings that a grid may have
MOST_POINTS = 100_000


@dataclass(frozen=True)
class SearchSettings:
    """Settings of all searches.

    steps: of the greedy search. best: members that `top` keeps. step: of the grid. trials, coordinates, journal: of the
    Bayesian search. seed: of random draws. shrink: share of the uniform weights that is mixed into fitted ones, -1 for
    the share that is best on machines left out. tried: called with (done, all) trials of each Bayesian search.
    """

    steps: int = 15
    best: int = 5
    step: float = 0.1
    trials: int = 100
    coordinates: int = 16
    seed: int = 0
    shrink: float = 0.0
    journal: Path | None = None
    tried: Callable[[int, int], None] | None = field(default=None, compare=False, repr=False)


def parse_share(text: str) -> float:
    """`shrink` from 0 to 1, or -1 for `auto`. Raises HarkenError for anything else."""
    if text == "auto":
        return -1.0
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0.0 <= share <= 1.0:
        raise HarkenError(f"{text!r} is not a share", next_step="Give --shrink a number from 0 to 1, or auto")
    return share


def uniform(members: int) -> Float64:
    """(M,) equal weights."""
    return np.full(members, 1.0 / members)


def singles(objective: Objective) -> Float64:
    """(M,) official score of each member alone."""
    return objective(np.eye(objective.members))


def top(objective: Objective, count: int) -> Float64:
    """(M,) equal weights of the best `count` members; of equally good ones the first."""
    best = np.argsort(-singles(objective), kind="stable")[:count]
    weights_M = np.zeros(objective.members)
    weights_M[best] = 1.0 / len(best)
    return weights_M


def greedy(objective: Objective, steps: int) -> Float64:
    """(M,) weights of forward selection with replacement (Caruana et al. 2004): `steps` times, the member that improves
    the mix most is added."""
    return greedy_path(objective, steps)[-1]


def greedy_path(objective: Objective, steps: int) -> list[Float64]:
    """(M,) weights after each step of the greedy search."""
    counts_M, path = np.zeros(objective.members), []
    for step in range(1, steps + 1):
        counts_M = counts_M.copy()
        counts_M[np.argmax(objective.score(objective.steps(counts_M)))] += 1
        path.append(counts_M / step)
    return path


def grid(objective: Objective, step: float) -> Float64:
    """(M,) the best of all weights that are multiples of `step` and sum to one. HarkenError for too many of them."""
    units = round(1.0 / step)
    members = objective.members
    points = math.comb(units + members - 1, members - 1)
    if not math.isclose(units * step, 1.0, rel_tol=1e-6) or units < 1:
        raise HarkenError(f"a step of {step:g} does not divide one", next_step="Choose 0.5, 0.25, 0.2, 0.1, 0.05 ...")
    if points > MOST_POINTS:
        raise HarkenError(
            f"{members} members on a grid of step {step:g} have {points:.3g} weightings, more than {MOST_POINTS}",
            next_step="Choose fewer members (--member), a larger --step, or --method greedy or bayes",
        )
    best_score, best_M = -1.0, uniform(members)
    compositions = _compositions(units, members)
    for chunk in iter(lambda: list(itertools.islice(compositions, 2_000)), []):
        weights_BM = np.array(chunk) / units
        key = "grid", step, weights_BM[0].tobytes()
        if key not in objective.shared:
            objective.shared[key] = objective.fresh_numbers(weights_BM)
        scores_B = objective.score(objective.shared[key])
        if scores_B.max() > best_score:
            best_score, best_M = float(scores_B.max()), weights_BM[np.argmax(scores_B)]
    return best_M


def _compositions(total: int, terms: int) -> Iterator[list[int]]:
    """All ways to write `total` as a sum of `terms` whole numbers, in a fixed order."""
    for bars in itertools.combinations(range(total + terms - 1), terms - 1):
        edges = (-1, *bars, total + terms - 1)
        yield [after - before - 1 for before, after in itertools.pairwise(edges)]

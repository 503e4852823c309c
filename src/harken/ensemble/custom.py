"""Searches for an ensemble's weights from a user's file: `search: {method: file.py:Class}`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.core.plugins import load_class, located_errors
from harken.ensemble.objective import Objective
from harken.ensemble.search import SearchSettings

Float64 = NDArray[np.float64]


class Search(ABC):
    """A search for weights that uses labels. Its constructor takes no arguments."""

    @abstractmethod
    def weights(self, objective: Objective, settings: SearchSettings) -> Float64:
        """(M,) weights of the members, none below zero and not all zero; they are scaled to sum to one.

        objective: (B, M) weightings -> (B,) official scores, higher = better; `objective.members` is M. settings: of
        the recipe or the command line, of which a search uses what it needs.
        """


def custom_weights(name: str, objective: Objective, settings: SearchSettings) -> Float64:
    """(M,) weights that sum to one, of the search `file.py:Class`. HarkenError for a search that returns no weights."""
    search = load_class(name, Search)  # type: ignore[type-abstract]
    with located_errors(name):
        weights_M = np.asarray(search().weights(objective, settings), dtype=np.float64)
    if weights_M.shape != (objective.members,) or not np.isfinite(weights_M).all() or (weights_M < 0).any():
        raise HarkenError(
            f"does not return {objective.members} finite weights, none below zero",
            file=name,
            next_step="Correct it: check_search says more",
        )
    if not weights_M.sum() > 0:
        raise HarkenError("returns weights that are all zero", file=name, next_step="Correct it")
    return weights_M / weights_M.sum()

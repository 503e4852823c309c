"""Searches for an ensemble's weights from a user's file: `search: {method: file.py:Class}`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.core.plugins import blamed, load_class
from harken.ensemble.objective import Objective
from harken.ensemble.search import Settings

Float64 = NDArray[np.float64]


class Search(ABC):
    """A way to find weights by labels. Its constructor takes no arguments."""

    @abstractmethod
    def weights(self, objective: Objective, settings: Settings) -> Float64:
        """(M,) weights of the members, none below zero and not all zero; their sum counts for nothing.

        objective: (B, M) weightings -> (B,) official scores, higher = better; `objective.members` is M. settings: what
        the recipe or the command line says, of which a search takes what it needs.
        """


def custom_weights(name: str, objective: Objective, settings: Settings) -> Float64:
    """(M,) weights that sum to one, of the search `file.py:Class`. HarkenError for a search that gives no weights."""
    found = load_class(name, Search)  # type: ignore[type-abstract]
    with blamed(name):
        weights_M = np.asarray(found().weights(objective, settings), dtype=np.float64)
    if weights_M.shape != (objective.members,) or not np.isfinite(weights_M).all() or (weights_M < 0).any():
        raise HarkenError(
            f"gives no weights of {objective.members} members: finite numbers, none below zero",
            file=name,
            next_step="Correct it: check_search tells more",
        )
    if not weights_M.sum() > 0:
        raise HarkenError("gives weights that are all zero", file=name, next_step="Correct it")
    return weights_M / weights_M.sum()

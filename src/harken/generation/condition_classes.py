"""Conditions as the classes of networks: which clip is of which, and how they are kept with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.generation.conditions import ConditionKey, normal_clips
from harken.training.augment.random_state import rng_for
from harken.training.recordings import Order


@dataclass(frozen=True)
class ConditionClasses:
    """Sorted conditions; a condition's place is its class."""

    keys: tuple[ConditionKey, ...]

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.keys)

    def index_of(self, key: ConditionKey) -> int:
        """The class of a condition. Raises HarkenError for one that is none of these."""
        if key not in self.keys:
            raise HarkenError(
                f"nothing was learned of {key}", next_step="Train on clips of it, or leave it out of the conditions"
            )
        return self.keys.index(key)

    def to_json(self) -> list[list[Any]]:
        """JSON values of `from_json`."""
        return [[*key[:-1], [list(pair) for pair in key.attributes]] for key in self.keys]

    @classmethod
    def from_json(cls, rows: Sequence[Sequence[Any]]) -> Self:
        """The classes of `to_json`."""
        keys = [
            ConditionKey(corpus, machine, section, domain, tuple((name, value) for name, value in attributes))
            for corpus, machine, section, domain, attributes in rows
        ]
        return cls(tuple(keys))


def classes_of(clips: Sequence[Clip]) -> tuple[ConditionClasses, list[Clip], NDArray[np.int64]]:
    """The conditions of the normal training clips, these clips, and the class of each.

    Raises HarkenError where there are none.
    """
    by_condition: Mapping[ConditionKey, list[Clip]] = normal_clips(clips)
    if not by_condition:
        raise HarkenError(
            "there are no normal training clips to learn from", next_step="Choose other years, or add machines"
        )
    chosen = [(clip, number) for number, rows in enumerate(by_condition.values()) for clip in rows]
    classes = ConditionClasses(tuple(by_condition))
    return classes, [clip for clip, _ in chosen], np.array([number for _, number in chosen], dtype=np.int64)


@dataclass(frozen=True)
class BalancedOrder(Order):
    """Clips are drawn for each batch by themselves, with replacement: of a class of n clips in proportion to
    n^(1 - balance). class_of: of each clip."""

    class_of: tuple[int, ...] = ()
    balance: float = 0.0

    def rows(self, number: int) -> NDArray[np.int64]:
        """See `Order.rows`."""
        if not self.balance:
            return super().rows(number)
        class_N = np.array(self.class_of)
        weight_N = np.bincount(class_N)[class_N] ** -float(self.balance)
        rng = rng_for(self.seed, number, "drawn")
        return np.asarray(rng.choice(self.clips, self.batch, p=weight_N / weight_N.sum()), dtype=np.int64)

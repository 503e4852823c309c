"""Sweeps: one run for every combination of values, each named by its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from harken.bench.recipe_changes import value_text
from harken.core.errors import HarkenError

#: more are taken for a mistake in writing
MOST_RUNS = 1000


@dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep. changes: dotted keys of the recipe and their values."""

    name: str
    changes: dict[str, Any]


def sweep_points(
    sweeps: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any] | None = None, name: str = ""
) -> list[SweepPoint]:
    """The product of the values of every key; the last key changes fastest.

    fixed: values that all runs share. name: with which the name of every run begins.
    Raises HarkenError for a key without values, with the same value twice, or fixed too, and for too many runs.
    """
    for key, values in sweeps.items():
        if not values:
            raise HarkenError(f"the sweep of {key} has no values", next_step=f"Write them as {key}=1,2,3")
        repeated = [
            value for number, value in enumerate(values) if value_text(value) in map(value_text, values[:number])
        ]
        if repeated:
            raise HarkenError(
                f"the sweep of {key} has {value_text(repeated[0])} twice", next_step="Give each value once"
            )
        if key in (fixed or {}):
            raise HarkenError(f"{key} is set and swept", next_step="Leave out --set or --sweep of it")
    points = [
        SweepPoint(_name(dict(zip(sweeps, values, strict=True)), name), dict(zip(sweeps, values, strict=True)))
        for values in _product(sweeps)
    ]
    return [SweepPoint(point.name, {**(fixed or {}), **point.changes}) for point in points]


def _product(sweeps: Mapping[str, Sequence[Any]]) -> list[tuple[Any, ...]]:
    count = 1
    for values in sweeps.values():
        count *= len(values)
    if count > MOST_RUNS:
        raise HarkenError(f"the sweeps are {count:,} runs", next_step=f"Give fewer values: at most {MOST_RUNS:,} runs")
    return list(product(*sweeps.values()))


def _name(changes: Mapping[str, Any], begin: str) -> str:
    """`begin,k=1,steps=100`: each key by as many of its last words as tell it from the others."""
    words = [f"{_short(key, list(changes))}={value_text(value)}" for key, value in changes.items()]
    return ",".join(filter(None, (begin, *words)))


def _short(key: str, keys: Sequence[str]) -> str:
    steps = key.split(".")
    for count in range(1, len(steps)):
        end = steps[-count:]
        if sum(swept.split(".")[-count:] == end for swept in keys) == 1:
            return ".".join(end)
    return key

"""The clip that a generated one starts from, where a condition has none of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable

from harken.core.errors import HarkenError
from harken.generation.conditions import ConditionKey

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def distance(first: ConditionKey, second: ConditionKey) -> tuple[int, float, bool, bool]:
    """How far two conditions of a machine are apart; tuples compare from the left:

    attributes that one of them lacks or that differ; how much those differ that are numbers in both, as a share of the
    larger one (`28V` and `31V`: 0.1); whether the section differs; whether the domain does. Ours.
    """
    values, other_values = dict(first.attributes), dict(second.attributes)
    names = values.keys() | other_values.keys()
    differing = [name for name in names if values.get(name) != other_values.get(name)]
    far = sum(_gap(values.get(name, ""), other_values.get(name, "")) for name in sorted(differing))
    return len(differing), far, first.section != second.section, first.domain != second.domain


def nearest_condition(key: ConditionKey, keys: Iterable[ConditionKey]) -> ConditionKey:
    """Of the same machine, that with the smallest `distance`, in order of the keys among equals; the condition itself
    if it is among them. Raises HarkenError for a machine without any."""
    of_machine = sorted(candidate for candidate in keys if candidate[:2] == key[:2])
    if not of_machine:
        machine = "/".join(filter(None, key[:2]))
        raise HarkenError(
            f"there are no normal training clips of {machine} to start from",
            next_step="Leave it out of the table of conditions",
        )
    return min(of_machine, key=lambda candidate: distance(key, candidate))


def _gap(value: str, second: str) -> float:
    numbers = [_NUMBER.search(text) for text in (value, second)]
    if numbers[0] is None or numbers[1] is None:
        return 1.0
    a, b = (float(match[0]) for match in numbers if match is not None)
    return abs(a - b) / max(abs(a), abs(b), 1e-9)

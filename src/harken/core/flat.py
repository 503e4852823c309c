"""Nested settings as one mapping of dotted keys."""

from __future__ import annotations

from typing import Any


def flat_values(value: Any, begin: str = "") -> dict[str, Any]:
    """Values of nested mappings, and of lists of mappings, by dotted key; other lists are values, and empty mappings
    hold none."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
        value = {str(number): item for number, item in enumerate(value)}
    if not isinstance(value, dict):
        return {begin: value}
    flat: dict[str, Any] = {}
    for key, inside in value.items():
        flat |= flat_values(inside, f"{begin}.{key}" if begin else str(key))
    return flat

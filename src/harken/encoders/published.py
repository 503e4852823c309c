"""Settings and sizes that published checkpoints name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harken.core.errors import WeightsError


def nested_value(settings: Any, key: str) -> Any:
    """Value of `key` in nested mappings, the outermost first; None without one."""
    level = [settings]
    while level:
        level = [value for value in level if isinstance(value, Mapping)]
        for mapping in level:
            if mapping.get(key) is not None:
                return mapping[key]
        level = [value for mapping in level for value in mapping.values()]
    return None


def check_fixed(settings: Mapping[str, Any], fixed: Mapping[str, Any], name: str) -> None:
    """Raise WeightsError where settings of a checkpoint of `name` differ from what every published one has."""
    for key, ours in fixed.items():
        value = nested_value(settings, key)
        if value is not None and value != ours:
            cause = f"is a {name} with {key} {value!r}, which no published one has"
            raise WeightsError(cause, next_step=f"Use one with {key} {ours!r}")


def fitting_shapes(
    tensor_shapes: Callable[..., dict[str, tuple[int, ...]]], *, width: int, depth: int, heads: Any
) -> dict[str, tuple[int, ...]]:
    """Shapes of a transformer's weights. Raises WeightsError where a checkpoint's `heads` do not fit its width."""
    try:
        if not isinstance(heads, int):
            raise TypeError
        return tensor_shapes(width=width, depth=depth, heads=heads)
    except (TypeError, ValueError, RuntimeError):
        cause = f"names {heads!r} heads, which do not fit its width of {width}"
        raise WeightsError(cause, next_step="Download it again") from None

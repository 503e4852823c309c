"""Values in nested mappings, such as the configurations of published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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

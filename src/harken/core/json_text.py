"""JSON as Harken writes it: ASCII, and valid for every reader."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def json_text(
    data: Any,
    *,
    indent: int | None = None,
    sort_keys: bool = False,
    separators: tuple[str, str] | None = None,
    default: Callable[[Any], Any] | None = None,
) -> str:
    """`json.dumps` in ASCII, with null in place of NaN and infinity, which JSON has not.

    Names of files that are not UTF-8 come as `os.fsdecode` gives them, their odd bytes as `\\udc80` to `\\udcff`.
    """
    options: dict[str, Any] = {
        "indent": indent, "sort_keys": sort_keys, "separators": separators, "default": default, "allow_nan": False,
    }  # fmt: skip
    try:
        return json.dumps(data, **options)
    except ValueError:
        return json.dumps(finite(data), **options)


def finite(data: Any) -> Any:
    """The same with None in place of NaN and infinity."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return data

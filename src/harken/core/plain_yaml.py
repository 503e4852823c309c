"""YAML of recipes and `--set`: plain values only, numbers as in YAML 1.2."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML implements YAML 1.1, where `1e-4` is a string, for lack of a decimal point, and dates are not strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith(":timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """Parse mappings, lists, strings, numbers, booleans and null. `1e-4` is a number, dates are strings.

    Raises ValueError, with a message of one line, for invalid YAML or other values.
    """
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    _check(value)
    return value


def _check(value: Any) -> None:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for item in value:
            _check(item)
    elif not (value is None or isinstance(value, str | int | float)):
        raise ValueError(f"a {type(value).__name__} is neither a text nor a number")

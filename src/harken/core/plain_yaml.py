"""YAML of recipes, bags and `--set`: plain values only, numbers as in YAML 1.2, bounded in size and depth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

#: the longest text that is read; that of a recipe has some thousand characters
_MOST_CHARACTERS = 4 * 2**20
#: values of a text, those that aliases repeat included
_MOST_VALUES = 100_000
_DEEPEST = 50
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|nan)$", re.I)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,999})$")
_TAG = "tag:yaml.org,2002:"
_MERGE, _TEXT = f"{_TAG}merge", f"{_TAG}str"
_NUMBERS = {f"{_TAG}int": _INTEGER, f"{_TAG}float": _FLOAT}
_TAGS = frozenset({_MERGE, _TEXT, *_NUMBERS, *(f"{_TAG}{name}" for name in ("bool", "null", "map", "seq"))})


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML implements YAML 1.1, where `1e-4` is a string, for lack of a decimal point, and dates are not strings.

    What it alone takes for a number, such as `1_000`, `010` and `1:30`, gets the tag of integers, and is refused.
    """

    _values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """As the base class, up to `_MOST_VALUES` values: of more, the rest is not even read."""
        self._values += 1
        if self._values > _MOST_VALUES:
            raise ValueError(f"line {self.peek_event().start_mark.line + 1}: it has more than {_MOST_VALUES:,} values")
        return super().compose_node(parent, index)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for first in {*yaml.SafeLoader.yaml_implicit_resolvers, *"-+.0123456789"}:
        pairs = yaml.SafeLoader.yaml_implicit_resolvers.get(first, [])
        kept = [(tag, pattern) for tag, pattern in pairs if not tag.endswith(":timestamp") and tag not in _NUMBERS]
        older = [(f"{_TAG}int", pattern) for tag, pattern in pairs if tag in _NUMBERS]
        resolvers[first] = [*_NUMBERS.items(), *kept, *older]
    return resolvers


_Loader.yaml_implicit_resolvers = _resolvers()


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes text that either this reader or one of YAML 1.1 takes for something else: `1e5`, `yes`, `2025-01-01`."""


_Dumper.yaml_implicit_resolvers = {
    first: [*pairs, *yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])] for first, pairs in _resolvers().items()
}


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Unquoted and in single quotes, other line breaks than `\n` are written as they are and read as blanks.
    style = None if text.isprintable() or text.replace("\n", "").isprintable() else '"'
    return dumper.represent_scalar(_TEXT, text, style=style)


_Dumper.add_representer(str, _represent_text)


def yaml_text(data: Any, width: int = 100) -> str:
    """Mappings, lists, strings, numbers, booleans and null as YAML that `read_yaml` reads as the same."""
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
    return str(text)


def read_yaml(text: str) -> Any:
    """Parse mappings, lists, strings, numbers, booleans and null. `1e-4` is a number, dates are strings.

    Raises ValueError, with a message of one line that names the line of the text, for invalid YAML, other values,
    numbers such as `1_000`, keys that are no text or occur twice, and for more values, aliases written out, than any
    file of Harken has.
    """
    return read_yaml_lines(text)[0]


def read_yaml_file(file: Path) -> Any:
    """`read_yaml` of a UTF-8 file. Raises OSError and ValueError."""
    with file.open("rb") as handle:
        data = handle.read(4 * _MOST_CHARACTERS + 1)
    return read_yaml(data.decode("utf-8"))


def read_yaml_lines(text: str) -> tuple[Any, dict[str, int]]:
    """`read_yaml`, and the line, from 1, of each key and item by its dotted path: `stages.embed.layer`, `seeds.0`."""
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"it has more than {_MOST_CHARACTERS:,} characters")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {}
            _check(node, {}, 0)
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).replace('in "<unicode string>", ', "").split())) from None
    except RecursionError:
        raise ValueError(f"it is nested more than {_DEEPEST} deep") from None
    return value, dict(_lines(node, ""))


def _check(node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """Values below a node, aliases written out. Raises for too many or too deep ones, and for odd keys."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise _error("an alias stands within what it names", node)
        return sizes[id(node)]
    if depth > _DEEPEST:
        raise _error(f"it is nested more than {_DEEPEST} deep", node)
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if key.tag in _NUMBERS:
                key.tag = _TEXT  # as it is written
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TEXT, _MERGE):
                named = _shown(key) if isinstance(key, yaml.ScalarNode) else "of several values"
                raise _error(f"the key {named} is no text: put it in quotes", key)
            if key.value in keys and key.tag != _MERGE:
                raise _error(f"the key {_shown(key)} occurs twice", key)
            keys.add(key.value)
            size += _check(key, sizes, depth + 1) + _check(value, sizes, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check(item, sizes, depth + 1) for item in node.value)
    elif node.tag in _NUMBERS and not _NUMBERS[node.tag].match(node.value):
        raise _error(f"{_shown(node)} may be a number or a text: write a plain number, or put it in quotes", node)
    if node.tag not in _TAGS or (isinstance(node, yaml.ScalarNode) and "\0" in node.value):
        raise _error("it is neither a text nor a number", node)
    if size > _MOST_VALUES:
        raise _error(f"it has more than {_MOST_VALUES:,} values, aliases written out", node)
    sizes[id(node)] = size
    return size


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        inside = [(key.value, key, value) for key, value in node.value if key.tag != _MERGE]
    else:
        inside = [(str(row), item, item) for row, item in enumerate(node.value)] * isinstance(node, yaml.SequenceNode)
    for name, place, value in inside:
        yield f"{path}{name}", place.start_mark.line + 1
        yield from _lines(value, f"{path}{name}.")


def line_of(lines: Mapping[str, int], path: str) -> int | None:
    """The line of a dotted path, or of the innermost mapping or list around it that the text has."""
    while path and path not in lines:
        path = path.rpartition(".")[0]
    return lines.get(path)


def _error(cause: str, node: yaml.Node) -> ValueError:
    return ValueError(f"line {node.start_mark.line + 1}: {cause}")


def _shown(node: yaml.ScalarNode) -> str:
    return repr(node.value if len(node.value) <= 40 else f"{node.value[:40]}...")

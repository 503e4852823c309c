"""Style of the source: documented public definitions, unique class names, no banned words in identifiers."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "harken"
#: parts of identifiers, between underscores
BANNED = {"peeks", "twin", "twins", "nominal", "promise", "promises", "promised", "told", "tells"}
#: whole identifiers that do not say what they hold
EMPTY = {
    "about", "found", "here", "known", "mine", "one", "other", "own", "part", "parts", "rest", "there", "told", "what",
    "which", "whole",
}  # fmt: skip

#: file -> identifiers that are terms of its file format
TERMS = {
    "data/catalog/__init__.py": {"part", "parts"},
    "data/check.py": {"parts"},
    "training/models.py": {"parts"},
    "data/download.py": {"part", "parts"},
    "monitor/bundle.py": {"part", "parts"},
    "monitor/manifests.py": {"part", "parts"},
    "monitor/stored.py": {"parts"},
    "monitor/stored_rows.py": {"part", "parts"},
    "monitor/stored_checks.py": {"part", "parts"},
}

Function = ast.FunctionDef | ast.AsyncFunctionDef

TREES = {
    file.relative_to(SOURCE).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
    for file in sorted(SOURCE.rglob("*.py"))
}
CLASSES: dict[str, list[tuple[str, ast.ClassDef]]] = defaultdict(list)
for _file, _tree in TREES.items():
    for _node in ast.walk(_tree):
        if isinstance(_node, ast.ClassDef):
            CLASSES[_node.name].append((_file, _node))


def overrides_documented(cls: ast.ClassDef, method: str) -> bool:
    """Whether a base class in the package documents a method of this name."""
    for base in cls.bases:
        base = base.value if isinstance(base, ast.Subscript) else base
        name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
        for _, definition in CLASSES.get(name, ()):
            for node in definition.body:
                if isinstance(node, Function) and node.name == method and ast.get_docstring(node):
                    return True
            if overrides_documented(definition, method):
                return True
    return False


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Names of public definitions without a docstring."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if not isinstance(method, Function) or method.name.startswith("_") or ast.get_docstring(method):
                    continue
                if not overrides_documented(node, method.name):
                    yield f"{node.name}.{method.name}"


def identifiers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(name, line) of every name that a module defines: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def test_public_definitions_have_docstrings() -> None:
    missing = [f"{file}: {name}" for file, tree in TREES.items() for name in undocumented(tree)]
    assert not missing, "\n".join(missing)


def test_public_class_names_are_unique() -> None:
    files: dict[str, list[str]] = defaultdict(list)
    for file, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files[node.name].append(file)
    repeated = {name: where for name, where in files.items() if len(where) > 1}
    assert not repeated, repeated


def test_identifiers_say_what_they_hold() -> None:
    wrong = [
        f"{file}:{line}: {name}"
        for file, tree in TREES.items()
        for name, line in identifiers(tree)
        if name in EMPTY - TERMS.get(file, set()) or BANNED & set(name.lower().strip("_").split("_"))
    ]
    assert not wrong, "\n".join(wrong)

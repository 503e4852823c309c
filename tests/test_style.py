"""Style of the source: documented public definitions, unique class names, no banned words in identifiers."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """File -> what stands in it."""
    files = sorted(SOURCE.rglob("*.py"))
    return {file.relative_to(SOURCE).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def definitions(trees: Iterable[ast.Module]) -> dict[str, list[ast.ClassDef]]:
    """Name -> classes of that name."""
    classes: dict[str, list[ast.ClassDef]] = defaultdict(list)
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(node)
    return classes


def overrides_documented(cls: ast.ClassDef, method: str, classes: Mapping[str, list[ast.ClassDef]]) -> bool:
    """Whether a base class in the package documents a method of this name."""
    for base in cls.bases:
        base = base.value if isinstance(base, ast.Subscript) else base
        name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
        for definition in classes.get(name, ()):
            for node in definition.body:
                if isinstance(node, Function) and node.name == method and ast.get_docstring(node):
                    return True
            if overrides_documented(definition, method, classes):
                return True
    return False


def undocumented(tree: ast.Module, classes: Mapping[str, list[ast.ClassDef]]) -> Iterator[str]:
    """Names of public definitions without a docstring."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if not isinstance(method, Function) or method.name.startswith("_") or ast.get_docstring(method):
                    continue
                if not overrides_documented(node, method.name, classes):
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


def test_public_definitions_have_docstrings(trees: dict[str, ast.Module]) -> None:
    classes = definitions(trees.values())
    missing = [f"{file}: {name}" for file, tree in trees.items() for name in undocumented(tree, classes)]
    assert not missing, "\n".join(missing)


def test_public_class_names_are_unique(trees: dict[str, ast.Module]) -> None:
    files: dict[str, list[str]] = defaultdict(list)
    for file, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files[node.name].append(file)
    repeated = {name: where for name, where in files.items() if len(where) > 1}
    assert not repeated, repeated


def test_identifiers_say_what_they_hold(trees: dict[str, ast.Module]) -> None:
    wrong = [
        f"{file}:{line}: {name}"
        for file, tree in trees.items()
        for name, line in identifiers(tree)
        if name in EMPTY - TERMS.get(file, set()) or BANNED & set(name.lower().strip("_").split("_"))
    ]
    assert not wrong, "\n".join(wrong)

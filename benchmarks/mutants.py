"""Mutation testing of what alarms, official numbers and stored models rest on: how many small faults the tests find.

python benchmarks/mutants.py [--module calibration] [--most 150] [--seed 0] [--patience 600]

Each mutant is the package with one expression changed: a comparison, an operator, a number, a condition, an argument
left out, a statement removed. It counts as killed where a test of the module fails, or hangs. Mutants of
messages and docstrings are not made. Printed: share killed, and each survivor as `file:line: before -> after`.

Each mutant is imported from memory in a fork. Processes that tests start have the package as it is.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: what tests import that takes long
PRELOADED = ("numpy", "scipy.stats", "scipy.signal", "sklearn.metrics", "hypothesis", "pyarrow.parquet", "pydantic",
             "safetensors.numpy", "soundfile", "typer", "yaml")  # fmt: skip
#: tests of what happens in other processes, which have the package as it is
_OTHER_PROCESSES = tuple(
    f"--deselect=tests/test_shared_models.py::{name}"
    for name in ("test_two_writers_and_a_reader_of_one_model", "test_two_scorers_with_one_memory_count_all_recordings",
                 "test_a_lock_is_given_up_by_whoever_is_killed_and_leaves_no_file")
)  # fmt: skip
#: source below src/harken -> tests that are to find faults in it, the quickest first
MODULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "calibration": (
        ("detection/calibration.py", "detection/tail.py"),
        ("tests/test_calibration.py", "tests/test_sequential.py"),
    ),
    "bundle": (
        ("monitor/bundle.py", "monitor/stored.py", "monitor/stored_checks.py"),
        ("tests/test_bundle.py", "tests/test_shared_models.py", *_OTHER_PROCESSES,
         "tests/test_learning.py::test_known_faults_of_strangers_fit_together",
         "tests/test_learning.py::test_known_faults_of_strangers_have_lengths_and_ages"),
    ),
    "metrics": (("evaluation/metrics.py",), ("tests/test_metrics.py",)),
    "tables": (
        ("evaluation/score_tables.py", "core/tables.py", "data/cells.py"),
        ("tests/test_tables.py", "tests/test_score_tables.py", "tests/test_odd_numbers.py"),
    ),
}  # fmt: skip
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
#: calls whose arguments are words for people
_WORDS = frozenset({"HarkenError", "BundleError", "ValueError", "TypeError", "KeyError", "reading", "writing"})
#: longer than any of the tests takes
_PATIENCE = 600.0


@dataclass(frozen=True)
class Mutant:
    """A file with one change. before, after: the line's expression; text: of the whole file."""

    file: str
    line: int
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before}  ->  {self.after}"


def mutants(file: str) -> list[Mutant]:
    """Every mutant of a file below src/harken."""
    tree = ast.parse((ROOT / "src" / "harken" / file).read_text())
    places = [node for node in ast.walk(tree) if not isinstance(node, ast.Module)]
    skipped = _skipped(tree)
    made = []
    for number, node in enumerate(places):
        if id(node) in skipped:
            continue
        for choice in range(len(list(_changes(node)))):
            changed = copy.deepcopy(tree)
            twin = [each for each in ast.walk(changed) if not isinstance(each, ast.Module)][number]
            replacement = list(_changes(twin))[choice]
            _replace(changed, twin, replacement)
            before, after = ast.unparse(node), ast.unparse(replacement)
            text = ast.unparse(ast.fix_missing_locations(changed))
            made.append(Mutant(file, getattr(node, "lineno", 0), _short(before), _short(after), text))
    return made


def _short(text: str) -> str:
    return " ".join(text.split())[:90]


def _skipped(tree: ast.Module) -> set[int]:
    """Nodes of docstrings, annotations, messages, imports and decorators."""
    roots: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            roots.append(node)
        elif isinstance(node, ast.FunctionDef):
            roots += [*node.decorator_list, *([node.returns] if node.returns else [])]
        elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            roots.append(node.annotation)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _WORDS:
            roots += [*node.args, *node.keywords]
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr):
            roots.append(node)
    return {id(inside) for root in roots for inside in ast.walk(root)}


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What a node may be replaced by."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
        changed = copy.copy(node)
        changed.ops = [_COMPARED[type(node.ops[0])](), *node.ops[1:]]
        yield changed
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        changed_operator = copy.copy(node)
        changed_operator.op = _OPERATORS[type(node.op)]()
        yield changed_operator
    elif isinstance(node, ast.BoolOp):
        changed_logic = copy.copy(node)
        changed_logic.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield changed_logic
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield ast.Constant(node.value + 1)
        elif isinstance(node.value, str) and node.value:
            yield ast.Constant(f"x{node.value}")
    elif isinstance(node, ast.Call) and len(node.args) > 1 and not isinstance(node.args[-1], ast.Starred):
        shorter = copy.copy(node)
        shorter.args = node.args[:-1]
        yield shorter
    elif isinstance(node, ast.keyword) and node.arg is not None:
        pass
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Raise | ast.Expr | ast.AugAssign | ast.Break | ast.Continue):
        yield ast.Pass()
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                for place, item in enumerate(value):
                    if item is old:
                        value[place] = new


class _Source(MetaPathFinder, SourceLoader):
    """Imports one module of the package from a text."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = ".".join(("harken", *Path(mutant.file).with_suffix("").parts))
        self._mutant = mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return spec_from_loader(name, self) if name == self._name else None

    def get_filename(self, name: str) -> str:
        return str(ROOT / "src" / "harken" / self._mutant.file)

    def get_data(self, path: str) -> bytes:
        return self._mutant.text.encode()

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError  # no bytecode is kept


def killed(mutant: Mutant | None, tests: tuple[str, ...]) -> bool:
    """Whether a test fails, in a fork of this process, which has imported all but the package."""
    child = os.fork()
    if not child:
        code = 1
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nowhere, descriptor)
            os.chdir(ROOT)
            if mutant is not None:
                sys.meta_path.insert(0, _Source(mutant))
            temporary = tempfile.mkdtemp(prefix="mutant")
            options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={temporary}/t")
            code = int(pytest.main([*options, "--hypothesis-seed=0", *tests]))
            shutil.rmtree(temporary, ignore_errors=True)
        finally:
            os._exit(code)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def measure(module: str, most: int, seed: int, patience: float) -> None:
    """Try up to `most` mutants of a module, or as many as `patience` seconds allow; print what survives."""
    files, tests = MODULES[module]
    every = [mutant for file in files for mutant in mutants(file)]
    chosen = random.Random(seed).sample(every, min(most, len(every)))
    begun, tried, survivors = time.monotonic(), 0, 0
    if killed(None, tests):
        raise SystemExit(f"{module}: its tests fail without any fault")
    for mutant in chosen:
        if time.monotonic() - begun > patience:
            break
        tried += 1
        if not killed(mutant, tests):
            survivors += 1
            print(f"  {mutant}", flush=True)
    share = 1 - survivors / max(tried, 1)
    seconds = time.monotonic() - begun
    print(
        f"{module}: {tried} of {len(every)} mutants, {tried - survivors} killed, {share:.0%} ({seconds:.0f} s)",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", choices=sorted(MODULES), action="append")
    parser.add_argument("--most", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=float, default=3600.0, help="Seconds for each module.")
    arguments = parser.parse_args()
    for package in PRELOADED:
        import_module(package)
    for name in arguments.module or sorted(MODULES):
        measure(name, arguments.most, arguments.seed, arguments.patience)

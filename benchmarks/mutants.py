"""Mutation testing of what alarms, official numbers and stored models rest on: how many small faults the tests find.

python benchmarks/mutants.py [--module calibration] [--most 150] [--seed 0] [--folder DIR]

Each mutant is the package with one expression changed: a comparison, an operator, a number, a condition, an argument
left out, a statement removed. It counts as killed where a test of the module fails, or hangs. Mutants of
messages and docstrings are not made. Printed: share killed, and each survivor as `file:line: before -> after`.

mutmut (3.8) does not cope with a package whose tests run the code in further processes and from a folder of their own,
which is why this is a program of its own.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: source below src/harken -> tests that are to find faults in it, the quickest first
MODULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "calibration": (
        ("detection/calibration.py", "detection/tail.py"),
        ("tests/test_calibration.py", "tests/test_sequential.py"),
    ),
    "bundle": (
        ("monitor/bundle.py", "monitor/stored.py", "monitor/stored_checks.py"),
        ("tests/test_bundle.py", "tests/test_shared_models.py"),
    ),
    "metrics": (("evaluation/metrics.py",), ("tests/test_metrics.py",)),
    "tables": (
        ("evaluation/score_tables.py", "core/tables.py", "data/cells.py"),
        ("tests/test_score_tables.py", "tests/test_odd_numbers.py"),
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
    elif isinstance(node, ast.Return) and node.value is not None:
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


def killed(mutant: Mutant | None, tests: tuple[str, ...], folder: Path) -> bool:
    """Whether a test fails. folder: of a copy of the package, which the mutant is put into for as long."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    file = folder / "src" / "harken" / mutant.file if mutant is not None else None
    original = file.read_text() if file is not None else ""
    if file is not None and mutant is not None:
        file.write_text(mutant.text)
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
        f"--basetemp={folder / 'temporary'}", "--hypothesis-seed=0", *tests,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=_PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        if file is not None:
            file.write_text(original)


def measure(module: str, most: int, seed: int, folder: Path, workers: int) -> tuple[int, list[Mutant]]:
    """Number of mutants tried, and those that no test found."""
    files, tests = MODULES[module]
    every = [mutant for file in files for mutant in mutants(file)]
    chosen = random.Random(seed).sample(every, min(most, len(every)))
    copies = []
    for number in range(workers):
        copies.append(folder / f"{module}{number}")
        for name in ("src", "tests", "benchmarks", "docs"):
            shutil.copytree(ROOT / name, copies[-1] / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / name, copies[-1] / name)
    begun = time.monotonic()
    if killed(None, tests, copies[0]):
        raise SystemExit(f"{module}: its tests fail without any fault")
    survivors: list[Mutant] = []

    def work(worker: int) -> None:
        for mutant in chosen[worker::workers]:
            if not killed(mutant, tests, copies[worker]):
                survivors.append(mutant)
                print(f"  {mutant}", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    share = 1 - len(survivors) / max(len(chosen), 1)
    print(
        f"{module}: {len(chosen)} of {len(every)} mutants, {len(chosen) - len(survivors)} killed, {share:.0%} "
        f"({time.monotonic() - begun:.0f} s)", flush=True,
    )  # fmt: skip
    return len(chosen), survivors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", choices=sorted(MODULES), action="append")
    parser.add_argument("--most", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        for name in arguments.module or sorted(MODULES):
            measure(name, arguments.most, arguments.seed, root, arguments.workers)
    finally:
        shutil.rmtree(root)

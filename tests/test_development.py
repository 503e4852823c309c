"""docs/development.md: its commands run, and it names every program that a test looks for."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line) for block in re.findall(r"^```\n(.*?)^```", PAGE, re.S | re.M) for line in block.splitlines()
]
#: program -> (packages, files of tests)
PROGRAMS = {
    program: (re.findall(r"`([\w.-]+)`", packages), re.findall(r"`(test_\w+)`", tests))
    for programs, packages, tests in re.findall(r"^\| (`[^|]+) \| ([^|]+) \| (`test_[^|]+) \|$", PAGE, re.M)
    for program in re.findall(r"`([\w.-]+)`", programs)
}


def commands(*first: str) -> list[list[str]]:
    """What follows these words in commands that begin with them."""
    return [words[len(first) :] for words in COMMANDS if words[: len(first)] == [*first]]


def test_commands_of_make_are_targets() -> None:
    for target in commands("make"):
        subprocess.run(["make", "-n", *target], cwd=ROOT, check=True, capture_output=True)


def test_commands_of_pytest_choose_tests() -> None:
    chosen = commands(".venv/bin/python", "-m", "pytest")
    program = f"import pytest\nfor words in {chosen!r}:\n    assert not pytest.main([*words, '--collect-only']), words"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_benchmarks_are_there() -> None:
    for program, *words in commands(".venv/bin/python"):
        if program == "-m":
            continue
        text = (ROOT / program).read_text(encoding="utf-8")
        assert "ArgumentParser(" in text if words == ["--help"] else "sys.argv[1]" in text
    covered = len(commands("make")) + len(commands(".venv/bin/python")) + len(commands("apt", "install"))
    assert covered == len(COMMANDS)


def test_packages_are_those_of_the_table() -> None:
    packages = {package for line in commands("apt", "install") for package in line}
    assert {package for named, _ in PROGRAMS.values() for package in named} == packages


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_tests_that_need_a_program_skip_without_it(program: str) -> None:
    for name in PROGRAMS[program][1]:
        assert re.search(r"skip(if)?\(", (ROOT / "tests" / f"{name}.py").read_text(encoding="utf-8")), name


def test_every_program_that_tests_look_for_is_named() -> None:
    sought: set[str] = set()
    for file in (ROOT / "tests").glob("*.py"):
        sought |= set(re.findall(r"which\(\"([\w.-]+)\"\)", file.read_text(encoding="utf-8")))
    assert sought <= set(PROGRAMS)


def test_files_that_are_named_are_there() -> None:
    for name in re.findall(r"^\| `(\w+\.py)` \|", PAGE, re.M):
        assert (ROOT / "tests" / name).is_file(), name

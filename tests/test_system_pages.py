"""The pages of docs/systems: every value in their tables equals that of the recipe, every value of the recipe is in a
table, and every command exists."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from harken.bench.recipe import load_recipe, recipe_text
from harken.bench.repeat import expand, matching
from harken.cli.console import key_values
from harken.cli.main import app
from harken.weights.catalog import catalog

DOCS = Path(__file__).parents[1] / "docs"
PAGES = DOCS / "systems"
#: page -> its recipes
RECIPES: dict[str, tuple[str, ...]] = {
    "thuee": ("thuee_system1", "thuee_system2", "thuee_system3", "thuee_system4"),
    "sjtu_aithu": ("sjtu_aithu",),
    "nwpu_fusion": ("nwpu_fusion",),
    "unisound": ("unisound",),
    "ustc": ("ustc",),
    "ustc_attributes": ("ustc_attributes",),
    "training_free": ("training_free",),
    "baseline_ae": ("baseline_ae",),
}
HEADER = ["report's value", "ours", "where in the recipe", "why"]
#: kind and inputs of a stage, which no report gives
GRAPH = ("use", "from")


@dataclass(frozen=True)
class Row:
    """One line of a table. keys: dotted keys of the resolved recipe (`recipe:key` of one recipe of several), or names
    in the code, such as harken.detection.memory_bank.SMOTE_NEIGHBOURS. changes: values of the recipe's parameters
    under which it holds."""

    line: str
    report: str
    ours: Any
    keys: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]
    why: str

    @property
    def specified(self) -> bool:
        return not self.report.startswith(("not specified", "—"))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@cache
def rows(page: str) -> tuple[Row, ...]:
    found, inside = [], False
    for line in (PAGES / f"{page}.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
        elif cells(line) == HEADER:
            inside = True
        elif inside and not set(line) <= set("|- "):
            assert len(cells(line)) == len(HEADER), line
            report, ours, where, why = cells(line)
            named = re.findall(r"`([^`]+)`", where)
            keys = tuple(name for name in named if "=" not in name)
            assert keys, f"no key: {line}"
            assert report, f"neither a value nor `not specified`: {line}"
            changes = tuple((name.split("=")[0], name.split("=")[1]) for name in named if "=" in name)
            value = yaml.safe_load(re.fullmatch(r"`(.+)`", ours)[1])  # type: ignore[index]
            found.append(Row(line, report, value, keys, changes, why))
    assert len(found) >= 8, f"{page} has no table"
    return tuple(found)


@cache
def resolved(recipe: str, changes: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """The recipe as it runs, in the layout of its file."""
    values = {key: yaml.safe_load(value) for key, value in changes}
    data = load_recipe(recipe, profile="full", changes=values).model_dump(mode="json")
    stages = {
        name: {**{key: one[key] for key in ("use", "seed", "seeds") if key in one}, **one["parameters"]}
        for name, one in data["stages"].items()
    }
    return {**data, "stages": stages}


def matches(key: list[str], path: list[str]) -> bool:
    """Whether the place at `path` is the one that `key` is about, or lies in it."""
    return len(key) <= len(path) and all(fnmatchcase(part, name) for name, part in zip(key, path, strict=False))


def values_at(data: Any, key: list[str]) -> list[Any]:
    """Of every place that a dotted key with `*` names. `3` is the fourth entry of a list."""
    if not key:
        return [data]
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [value for name, one in inside if fnmatchcase(str(name), key[0]) for value in values_at(one, key[1:])]


def leaves(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all that is said in a recipe; a list of plain values is one."""
    parts: Any = data.items() if isinstance(data, dict) else ()
    if isinstance(data, list) and any(isinstance(one, dict) for one in data):
        parts = enumerate(data)
    for name, one in parts:
        yield from leaves(one, (*path, str(name)))
    if not parts:
        yield path


def in_code(name: str) -> Any:
    """A constant of a module, or the default of an argument of a class or function: `harken.module.Class.argument`."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        if importlib.util.find_spec(parts[0]) and _is_module(module):
            value: Any = import_module(module)
            break
    for part in parts[length:]:
        if callable(value) and part in inspect.signature(value).parameters:
            value = inspect.signature(value).parameters[part].default
        else:
            value = getattr(value, part)
    return value


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def same(told: Any, value: Any) -> bool:
    """Equal, but that true is not 1 and a list may be a tuple; members of an ensemble may be a list of patterns."""
    if isinstance(told, list) and isinstance(value, list | tuple):
        return len(told) == len(value) and all(map(same, told, value))
    return told == value and isinstance(told, bool) == isinstance(value, bool)


def members(told: Any, systems: list[str]) -> dict[str, float]:
    """What a recipe's `members` means."""
    weights = dict.fromkeys(told, 1.0) if isinstance(told, list) else told
    return {name: weight for pattern, weight in weights.items() for name in matching(pattern, systems)}


@pytest.mark.parametrize("page", RECIPES)
def test_every_value_is_the_recipes(page: str) -> None:
    wrong = []
    for row in rows(page):
        for key in row.keys:
            found, same_as_told = [], True
            for recipe in RECIPES[page]:
                told, values = row.ours, []
                if key.startswith("harken."):
                    values = [in_code(key)]
                elif (name := key_of(key, recipe)) is not None:
                    data = resolved(recipe, row.changes)
                    values = values_at(data, name.split("."))
                    if name.startswith("ensembles.") and name.endswith(".members"):
                        told = members(told, list(data["systems"]))
                same_as_told &= all(same(told, value) for value in values)
                found += values
            if not found or not same_as_told:
                wrong.append(f"{key}: the page says {row.ours!r}, there is {found!r}")
    assert not wrong, "\n".join(wrong)


def key_of(key: str, recipe: str) -> str | None:
    """A key of a page without the name of its recipe; None for a key of another recipe."""
    name, colon, rest = key.partition(":")
    return key if not colon else rest if name == recipe else None


@pytest.mark.parametrize(("page", "recipe"), [(page, recipe) for page in RECIPES for recipe in RECIPES[page]])
def test_every_number_of_the_recipe_is_in_a_table(page: str, recipe: str) -> None:
    raw = expand(yaml.safe_load(recipe_text(recipe)))
    said = [("seeds",), *([("score_years",)] if "score_years" in raw else [])]
    if raw.get("submission"):
        said.append(("submission",))
    for name, stage in raw["stages"].items():
        settings = {key: value for key, value in stage.items() if key not in GRAPH}
        said += [("stages", name, *path) for path in leaves(settings) if path]
    for name, ensemble in (raw.get("ensembles") or {}).items():
        said += [("ensembles", name, *path) for key, one in ensemble.items() for path in _parts(key, one)]
    for name, cases in (raw.get("when") or {}).items():
        for key in cases.get(raw["parameters"][name]) or {}:
            said.append(tuple(key.split(".")))
    said += [tuple(key.split(".")) for key in raw["profiles"]["full"] or {}]
    named = [key_of(key, recipe) for row in rows(page) if not row.changes for key in row.keys]
    keys = [key.split(".") for key in named if key is not None]
    missing = [".".join(path) for path in said if not any(matches(key, list(path)) for key in keys)]
    assert not missing, f"{page}.md does not tell: {', '.join(missing)}"


def _parts(key: str, value: Any) -> list[tuple[str, ...]]:
    return [(key,)] if key == "members" else [(key, *path) for path in leaves(value)]


@pytest.mark.parametrize("page", RECIPES)
def test_what_differs_from_the_report_says_why(page: str) -> None:
    """A number of the report, the same number of ours, or a reason. Section numbers stand in brackets."""
    silent = []
    for row in rows(page):
        ours = [one for one in (row.ours if isinstance(row.ours, list) else [row.ours]) if type(one) in (int, float)]
        if not row.specified or not ours or row.why:
            continue
        told = {float(one.replace(",", "")) for one in _numbers(row.report)}
        if not told.issuperset(map(float, ours)):
            silent.append(row.line)
    assert not silent, "\n".join(silent)


def _numbers(text: str) -> list[str]:
    text = re.sub(r"\(.*?\)", "", text)
    return re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", re.sub(r"(\d)k\b", r"\g<1>000", text))


def test_published_results_stand_beside_their_source() -> None:
    for file in PAGES.glob("*.md"):
        for paragraph in file.read_text(encoding="utf-8").split("\n\n"):
            for line in paragraph.splitlines() if paragraph.startswith("|") else [paragraph]:
                if re.search(r"\b\d\d\.\d+ %", line):
                    assert re.search(r"Tables? \w+", line), f"{file.name}: {line}"


def test_the_index_has_every_page_and_every_link_leads_somewhere() -> None:
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    pages = {file.stem for file in PAGES.glob("*.md")} - {"README"}
    assert pages == {*RECIPES}
    assert {name for name in re.findall(r"\]\((\w+)\.md\)", index)} >= pages
    for file in PAGES.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text(encoding="utf-8")):
            assert "://" in target or (file.parent / target).exists(), f"{file.name}: {target}"


# --- commands


def commands(file: Path) -> list[list[str]]:
    """Words of every `harken` line of the code blocks of a page."""
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```", file.read_text(encoding="utf-8"), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|", line):
                # Loops of the shell go over years.
                words = shlex.split(part.split(" > ")[0].replace("$year", "2020"), comments=True)
                if words[:1] == ["harken"]:
                    found.append(words[1:])
    return found


@cache
def program() -> Any:
    return typer.main.get_command(app)


def check_command(words: list[str]) -> None:
    """Parse a command line as the program would, its recipe with its changes too, and do nothing. Raises its errors."""
    command = program()
    context = command.make_context("harken", list(words))
    while hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    if words[0] in ("plan", "run") or words[:2] == ["recipe", "show"]:
        named = words[2 if words[0] == "recipe" else 1]
        load_recipe(named, changes=key_values([word for flag, word in pairwise(words) if flag == "--set"]))


@pytest.mark.parametrize("page", [*RECIPES, "README"])
def test_commands_are_ones_that_there_are(page: str) -> None:
    found = commands(PAGES / f"{page}.md")
    if page in RECIPES:
        assert {"plan", "run", "submit"} <= {words[0] for words in found}
        assert all(words[1] in RECIPES[page] for words in found if words[0] in ("plan", "run"))
    weights = {entry.name for entry in catalog()}
    for words in found:
        check_command(words)
        if words[:2] == ["weights", "fetch"]:
            assert words[2] in weights
        if words[0] == "submit":
            recipes = map(resolved, RECIPES[page])
            named = [word for flag, word in pairwise(words) if flag == "--system"]
            assert set(named) <= {name for recipe in recipes for name in (*recipe["systems"], *recipe["ensembles"])}


@pytest.mark.parametrize(
    "line",
    [
        "run thuee_system1 --dta data --workspace work",
        "runn",
        "data downlod 2025",
        "data download",
        "plan a b c",
        "plan unisound --set stages.beats.trainin.steps=1",
    ],
)
def test_wrong_commands_are_found(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing|unexpected|there is no|unknown key"):
        check_command(line.split())

"""Every command that a page names, in a block or in a sentence, is one that there is; so is what it sets."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from harken.bench.recipe import list_recipes, load_recipe
from harken.cli.console import key_lists, key_values
from test_system_pages import commands, program

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def inline(text: str) -> list[str]:
    """Code within sentences."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def check(words: list[str]) -> None:
    """A verb alone, a whole command, or one with `...` or `…` for what is left out: its verb and options exist."""
    command, rest = program(), list(words)
    while hasattr(command, "commands") and rest:
        default = getattr(command, "default", None)
        if default is not None and rest[0] not in command.commands:
            rest.insert(0, default)  # the verb that a group has when none is named
        assert rest[0] in command.commands, f"there is no command {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = [word.split("=")[0] for word in rest if word.startswith("-") and len(word) > 1]
    assert set(options) <= known | {"--help"}, f"there is no option in {' '.join(words)}"
    if rest and not {"...", "…"} & set(rest) and not hasattr(command, "commands"):
        command.make_context(command.name, rest)
    changes = key_values([word for flag, word in pairwise(rest) if flag == "--set"])
    swept = key_lists([word for flag, word in pairwise(rest) if flag == "--sweep"])
    changes |= {key: values[0] for key, values in swept.items()}
    # Of recipes that the reader has written nothing is known.
    if words[0] in ("plan", "run") and rest and rest[0] in list_recipes():
        load_recipe(rest[0], changes=changes)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_settings_are_ones_that_there_are(page: Path) -> None:
    for words in commands(page):
        check(words)
    for code in inline(page.read_text(encoding="utf-8")):
        if code.startswith("harken "):
            check(shlex.split(code)[1:])
        elif code.startswith("--set "):
            assert key_values([word for word in shlex.split(code) if word != "--set"])
        elif code.startswith("--sweep "):
            assert key_lists([word for word in shlex.split(code) if word != "--sweep"])


def test_a_page_with_a_wrong_command_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Say `harken runn x`, `harken score\n... --jsn`, or `harken plan`.\n")
    first, second, third = inline(page.read_text())
    for code in (first, second):
        with pytest.raises(AssertionError, match="there is no"):
            check(code.split()[1:])
    check(third.split()[1:])

"""Empty words on the command line, which a shell makes of a variable that is not set: no path means `here` by them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from harken.core.errors import HarkenError


def check_words(command: Any, words: Sequence[str]) -> None:
    """Raise HarkenError for an empty word in place of an argument or path; options of text may be empty.

    command: as typer builds it. pathlib takes an empty path for the current folder.
    """
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    options = {name: option for option in command.params for name in option.opts if name.startswith("-")}
    for before, word in pairwise(["", *words]):
        name, equals, value = word.partition("=")
        if word and not (equals and not value and name in options):
            continue
        option = options.get(name or before)
        if option is None or "Path" in str(getattr(option, "type_descriptor", "")):
            subject = (name or before) if option else "an argument"
            raise HarkenError(
                f"{subject} is empty, as a variable that is not set is",
                next_step="Give a name; . is the current folder",
            )

"""A machine that is added to the configuration of a monitor, whose other lines and comments stay."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harken.core.errors import HarkenError, reading
from harken.core.plain_yaml import read_yaml, yaml_text
from harken.core.sentences import Sentence
from harken.service.configuration.model import Configuration
from harken.service.configuration.read import checked

_NEW = """\
# Written by harken monitor --setup; it runs with: harken monitor --config plant.yaml
# Paths are relative to this file. What else can be said here: docs/plant.yaml.
store: monitor.db
sources:
machines:
{page}http:                 # {{port: 9464}} serves /metrics and /healthz
"""


def with_machine(
    file: Path, machine: str, source: dict[str, Any], entry: dict[str, Any], page: dict[str, Any] | None = None
) -> tuple[str, Configuration]:
    """The configuration with a machine and its source added, whose names are the same: its text, and what it says.

    file: of the configuration; it need not be there. source, entry: as in it. page: of a new one. Values are as they
    are to be read: `literal` keeps references out of them. Raises HarkenError where the result would be no valid one.
    """
    if file.exists():
        with reading(file):
            text = file.read_text(encoding="utf-8")
    else:
        text = _NEW.format(page=_line("page", page, "") if page else "")
    before = _read(text, file)
    for section, value in (("sources", source), ("machines", entry)):
        if machine in (before.get(section) or {}):
            raise HarkenError(
                Sentence("has {section} {machine!r} already", section=section[:-1], machine=machine),
                file=file,
                next_step=Sentence("Give this one another name"),
            )
        text = _inserted(text, section, machine, value, file)
    expected = {
        section: {**(before.get(section) or {}), machine: value}
        for section, value in (("sources", source), ("machines", entry))
    }
    if _read(text, file) != before | expected:
        raise _by_hand(file, machine, source, entry)
    return text, checked(_read(text, file), file.parent)


def literal(value: Any) -> Any:
    """A value in which `${` stands for itself, at any depth."""
    if isinstance(value, dict):
        return {key: literal(inside) for key, inside in value.items()}
    return value.replace("${", "$${") if isinstance(value, str) else value


def _inserted(text: str, section: str, machine: str, value: dict[str, Any], file: Path) -> str:
    """With a line below that of the section, indented like the next one."""
    head = re.search(rf"^{section}:[ \t]*(#.*)?\n", text, re.M)
    if head is None:
        raise _by_hand(file, machine, {section: value}, {})
    following = re.match(r"(?:[ \t]*(?:#.*)?\n)*([ ]+)\S", text[head.end() :])
    indent = following[1] if following else "  "
    return text[: head.end()] + _line(machine, value, indent) + text[head.end() :]


def _line(name: str, value: dict[str, Any], indent: str) -> str:
    key = yaml_text({name: None}, 10**6).strip().removesuffix("null").strip()
    return f"{indent}{key} {{{', '.join(_pair(*pair) for pair in value.items())}}}\n"


def _pair(key: str, value: Any) -> str:
    # Within braces, texts need quotes where they have commas and braces.
    text = yaml_text([value], 10**6).strip().removeprefix("- ")
    if isinstance(value, str) and set(value) & set(",[]{}:#&*!|>'\"%@`$"):
        text = "'" + value.replace("'", "''") + "'"
    return f"{key}: {text}"


def _read(text: str, file: Path) -> dict[str, Any]:
    try:
        data = read_yaml(text)
    except ValueError as error:
        raise HarkenError(
            Sentence("is not valid YAML ({error})", error=str(error)), file=file, next_step=Sentence("Correct the file")
        ) from None
    if not isinstance(data, dict):
        raise HarkenError(Sentence("is no configuration"), file=file, next_step=Sentence("Correct the file"))
    return data


def _by_hand(file: Path, machine: str, source: dict[str, Any], entry: dict[str, Any]) -> HarkenError:
    return HarkenError(
        Sentence("is written in a form that {machine!r} cannot be added to", machine=machine),
        file=file,
        next_step=Sentence("Write sources: and machines: on lines of their own"),
    )

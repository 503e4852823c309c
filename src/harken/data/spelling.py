"""Attributes and machine types in words: the catalogue has the long names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from harken.data import catalog

#: an attribute in words: name, "" where it has none, and value
Spelled = tuple[str, str]

_GLUED = re.compile(r"[A-Z0-9-]")
_CAPITALS = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z0-9])(?=[A-Z][a-z])")
_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d+)?)(V|mV|dB|Hz|kHz|rpm|mm|g|kg)")


def spelled_attributes(attributes: Mapping[str, str], year: int | None) -> list[Spelled]:
    """Attributes with the long names of a year: {"spd": "28V", "mic": "1"} -> [("speed", "28 V"), ("microphone", "1")].

    year: None, or one without catalogue: the names of all years. Unknown names stay as they are. Text in which names
    and values were not separated (`names.attribute_pairs`) is divided where known names begin, attached to their values
    (`weight15`) or not; what stands before the first is a value without name.
    """
    long_names = _long_names(year)
    spelled: list[Spelled] = []
    for name, value in attributes.items():
        if name == "text" and name not in long_names:
            spelled += _divided(value, long_names)
        else:
            spelled.append((long_names.get(name, name), _with_unit(value)))
    return spelled


def spelled_machine(machine: str) -> str:
    """Machine type in words: `ToyRCCar` -> `toy RC car`, `3DPrinter` -> `3D printer`."""
    words = [word for text in machine.split("_") for word in _CAPITALS.split(text) if word]
    # Abbreviations keep their capitals: RC, 3D.
    return " ".join(word if word[1:].lower() != word[1:] else word.lower() for word in _rejoined(words))


def _rejoined(words: list[str]) -> list[str]:
    """Digits belong to the capitals after them: `3`, `D`."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].isdigit() and word.isupper():
            joined[-1] += word
        else:
            joined.append(word)
    return joined


@cache
def _long_names(year: int | None) -> dict[str, str]:
    if year in catalog.years():
        assert year is not None
        return catalog.year(year).attributes
    return {name: text for number in catalog.years() for name, text in catalog.year(number).attributes.items()}


def _divided(text: str, long_names: Mapping[str, str]) -> list[Spelled]:
    tokens = text.split("_")
    spelled: list[Spelled] = []
    place = 0
    while place < len(tokens):
        name, attached, taken = _name_at(tokens, place, long_names)
        place += taken
        values = [attached] if attached else []
        # A name is followed by a value, even one that is a name too.
        if name and not attached and place < len(tokens):
            values.append(tokens[place])
            place += 1
        while place < len(tokens) and not _name_at(tokens, place, long_names)[0]:
            values.append(tokens[place])
            place += 1
        spelled.append((name, " ".join(map(_with_unit, values))))
    return spelled


def _name_at(tokens: list[str], place: int, long_names: Mapping[str, str]) -> tuple[str, str, int]:
    """Long name that begins at a token, value that is attached to it, and number of tokens; "" where none begins."""
    for count in (2, 1):
        name = "_".join(tokens[place : place + count])
        if name in long_names:
            return long_names[name], "", count
    token = tokens[place]
    for name in sorted(long_names, key=len, reverse=True):
        attached = token.removeprefix(name)
        if attached != token and len(name) > 1 and _GLUED.match(attached):
            return long_names[name], attached, 1
    return "", "", 0


def _with_unit(value: str) -> str:
    match = _QUANTITY.fullmatch(value)
    return f"{match[1]} {match[2]}" if match else value

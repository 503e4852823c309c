"""Parser of DCASE Task 2 file names, 2020-2026."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from harken.audio.suffixes import ALL_SUFFIXES

_WORDS = {
    "source": ("domain", "source"),
    "target": ("domain", "target"),
    "train": ("split", "train"),
    "test": ("split", "test"),
    "normal": ("condition", "normal"),
    "anomaly": ("condition", "anomaly"),
    "machine": ("kind", "clean"),
    "clean": ("kind", "clean"),
    "noise": ("kind", "noise"),
}
_ID_NAME = re.compile(r"(?:(normal|anomaly)_)?id_(\d+)_(\d+)$")
_SECTION_NAME = re.compile(rf"section_(\d+)_((?:(?:{'|'.join(_WORDS)})_)*)(\d+)(?:_(.*))?$", re.ASCII)
_SUFFIX = re.compile(rf"(?:{'|'.join(re.escape(suffix) for suffix in sorted(ALL_SUFFIXES))})$", re.IGNORECASE)
_KEY = re.compile(r"[A-Za-z][A-Za-z-]*$")


class Name(NamedTuple):
    """Fields of a DCASE file name; `unknown` or None where the name does not give them.

    attributes: the text after the running number, verbatim (`attributes_NN.csv` separates keys from values).
    """

    section: str
    number: str
    domain: str = "unknown"
    split: str | None = None
    condition: str = "unknown"
    kind: str = "machine"
    attributes: str = ""


def parse_name(stem: str) -> Name | None:
    """Parse a file name without its suffix; None when it is not a DCASE name.

    2020: `[normal_|anomaly_]id_NN_NNNNNNNN`. Since 2021: `section_NN`, then any of domain, split and condition in
    any order and number, the running number, then attributes. Each word is optional: evaluation
    clips lack all of them and one 2024 machine lacks `test`.
    """
    match = _SECTION_NAME.match(stem)
    if match:
        section, words, number, attributes = match.groups()
        fields = _fields(words)
        if fields is None:
            return None
        attributes = (attributes or "").strip("_")
        return Name(section, number, *fields, "" if attributes == "noAttribute" else attributes)
    match = _ID_NAME.match(stem)
    if match:
        return Name(section=match[2], number=match[3], condition=match[1] or "unknown")
    return None


@cache
def _fields(words: str) -> tuple[str, str | None, str, str] | None:
    """domain, split, condition and kind from the words of a name; None when one of them is given twice."""
    values: dict[str, str] = {}
    for word in words.split("_")[:-1]:
        field, value = _WORDS[word]
        if values.setdefault(field, value) is not value or words.count(f"{word}_") > 1:
            return None
    split = "supplemental" if "kind" in values else values.get("split")
    return values.get("domain", "unknown"), split, values.get("condition", "unknown"), values.get("kind", "machine")


def is_id_name(stem: str) -> bool:
    """Whether a name is of the 2020 form, with a machine ID."""
    return _ID_NAME.match(stem) is not None


def without_suffix(file_name: str) -> str:
    """The name without an audio suffix. Other dots are kept: attribute values contain some (`volt_1.5_wt_150`)."""
    return _SUFFIX.sub("", file_name)


def attribute_pairs(text: str) -> dict[str, str]:
    """Attributes of a name, key -> value: `spd_28V_mic_1` -> {"spd": "28V", "mic": "1"}.

    Text in which keys and values cannot be separated (joined as in `weight15_BckgF`, keys of two words, repeated keys)
    is kept unsplit under "text".
    """
    tokens = text.split("_")
    keys = tokens[::2]
    if len(tokens) % 2 or len(set(keys)) < len(keys) or not all(map(_KEY.match, keys)):
        return {"text": text} if text else {}
    return dict(zip(keys, tokens[1::2], strict=True))

"""The DCASE Task 2 file-name grammar, 2020-2026: what a recording's name says about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SUPPLEMENTAL = {"machine": "clean", "clean": "clean", "noise": "noise"}
_WORDS = {
    "source": "domain",
    "target": "domain",
    "train": "split",
    "test": "split",
    "normal": "condition",
    "anomaly": "condition",
}
_ID_NAME = re.compile(r"(?:(normal|anomaly)_)?id_(\d+)_(\d+)$")


@dataclass(frozen=True)
class Name:
    """Fields that stand in a DCASE file name; `unknown` or None where the name is silent.

    attributes: the text after the running number, as it stands (its keys are told apart by `attributes_NN.csv`).
    """

    section: str
    index: str
    domain: str = "unknown"
    split: str | None = None
    condition: str = "unknown"
    kind: str = "machine"
    attributes: str = ""


def parse_name(stem: str) -> Name | None:
    """Read a file name without its ending; None when it follows no DCASE grammar.

    2020: `[normal_|anomaly_]id_NN_NNNNNNNN`. Since 2021: `section_NN`, then any of domain, split and condition in
    any order and number, the running number, then attributes. Words are searched for, not counted: evaluation
    clips lack all of them and one 2024 machine lacks `test`.
    """
    match = _ID_NAME.match(stem)
    if match:
        return Name(section=match[2], index=match[3], condition=match[1] or "unknown")
    tokens = stem.split("_")
    if len(tokens) < 3 or tokens[0] != "section" or not tokens[1].isdigit():
        return None
    fields: dict[str, str] = {}
    for position, token in enumerate(tokens[2:], start=2):
        if token.isdigit():
            rest = "_".join(tokens[position + 1 :]).strip("_")
            attributes = "" if rest == "noAttribute" else rest
            return Name(section=tokens[1], index=token, attributes=attributes, **fields)
        field = _WORDS.get(token, "kind" if token in _SUPPLEMENTAL else None)
        if field is None or field in fields:
            return None
        fields[field] = _SUPPLEMENTAL.get(token, token)
        if field == "kind":
            fields["split"] = "supplemental"
    return None

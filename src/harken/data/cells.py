"""What the cells of tables say: labels, domains, clips. From closed sets; nothing is taken for something else."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from harken.audio.suffixes import ALL_SUFFIXES
from harken.core.names import joined
from harken.data.names import without_suffix

#: in any case; 0.0 and 1.0 are what tables of numbers make of 0 and 1
ANOMALY = {"0": False, "0.0": False, "false": False, "normal": False,
           "1": True, "1.0": True, "true": True, "anomaly": True}  # fmt: skip
DOMAINS = ("source", "target", "unknown")
_ENDINGS = "|".join(re.escape(suffix) for suffix in sorted(ALL_SUFFIXES))
_SEPARATED = re.compile(rf"(?:{_ENDINGS})\s*[;\t|,:=\s]|[;\t|]\s*[+-]?[0-9]*$", re.IGNORECASE)
#: for rows whose cells are not separated by commas
SEPARATORS = "Separate cells by commas and write decimal points: clip.wav,0.312 (not clip.wav;0,312)"


def read_anomaly(cell: str) -> bool:
    """`0`/`1`, `false`/`true` or `normal`/`anomaly`, in any case, blanks around it left out.

    Raises ValueError for anything else.
    """
    label = ANOMALY.get(cell.strip().lower())
    if label is None:
        raise ValueError(f"{cell!r} is not a label: write 0 or 1, false or true, normal or anomaly")
    return label


def read_domain(cell: str) -> str:
    """`source`, `target` or, also as an empty cell, `unknown`, in any case. Raises ValueError for anything else."""
    domain = cell.strip().lower() or "unknown"
    if domain not in DOMAINS:
        raise ValueError(f"{cell!r} is not a domain: write source, target or unknown")
    return domain


def read_clip(cell: str) -> str:
    """The name of a clip, in the form in which names are compared, without folders, suffix and blanks.

    Raises ValueError for an empty cell, and for one in which further cells follow the name, as where a table with
    semicolons and decimal commas is split at the commas: `clip.wav;0,312`.
    """
    name = PurePosixPath(cell.strip().replace("\\", "/")).name
    clip = without_suffix(name)
    if not clip:
        raise ValueError("it names no clip")
    if clip == name and _SEPARATED.search(name):
        raise ValueError(f"{name!r} is more than the name of a clip")
    return joined(clip)

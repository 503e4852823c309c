"""Operating conditions of few training clips, and how many clips of each are to be generated: a table to edit."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from harken.core.errors import HarkenError, did_you_mean
from harken.core.files import write_atomically
from harken.core.tables import csv_line, read_csv
from harken.data.clips import Clip, Domain

#: columns of the table; those after `attributes` but `generate` are for its reader, and may be left out
COLUMNS = ("corpus", "machine", "section", "domain", "attributes", "clips", "largest", "generate")
_NEEDED = ("machine", "section", "domain", "attributes", "generate")
#: generated clips of one condition, at most
MOST = 1_000_000


class ConditionKey(NamedTuple):
    """What the clips of a condition have in common. attributes: sorted (name, value) pairs; () where none are known."""

    corpus: str
    machine: str
    section: str
    domain: Domain
    attributes: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, clip: Clip) -> ConditionKey:
        """The condition of a clip."""
        return cls(clip.corpus, clip.machine, clip.section, clip.domain, tuple(sorted(clip.attributes.items())))

    def fields(self) -> dict[str, Any]:
        """What a clip of the condition has beside those of its machine."""
        return {"section": self.section, "domain": self.domain, "attributes": dict(self.attributes)}

    def __str__(self) -> str:
        """`dcase2025/fan section 00 target: spd=28V;mic=1`"""
        machine = "/".join(filter(None, (self.corpus, self.machine)))
        return f"{machine} section {self.section} {self.domain}: {attributes_text(self.attributes) or 'no attributes'}"


@dataclass(frozen=True)
class Condition:
    """A condition of a machine.

    clips: its normal training clips. largest: those of the machine's largest condition. generate: clips to be made.
    """

    key: ConditionKey
    clips: int
    largest: int
    generate: int


def attributes_text(attributes: Iterable[tuple[str, str]]) -> str:
    """`spd=28V;mic=1`; `%`, `;`, `=` and outer spaces in names and values as `%3B`."""
    return ";".join(f"{_escaped(name)}={_escaped(value)}" for name, value in attributes)


def _escaped(text: str) -> str:
    return re.sub(r"[%;=]|^\s+|\s+$", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def normal_clips(clips: Iterable[Clip]) -> dict[ConditionKey, list[Clip]]:
    """Recorded normal training clips by their condition, conditions and clips in sorted order; no others, and never one
    of a test split."""
    by_condition: dict[ConditionKey, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        normal = clip.condition == "normal" and clip.kind == "machine"
        if normal and clip.split == "train" and clip.payload == "sound" and clip.machine:
            by_condition[ConditionKey.of(clip)].append(clip)
    return dict(sorted(by_condition.items()))


def rare_conditions(
    clips: Sequence[Clip],
    *,
    share: float,
    factor: float,
    domains: Collection[str] | None = None,
    count: Callable[[Sequence[Clip]], int] = len,
) -> list[Condition]:
    """All conditions of the normal training clips, and how many clips each gets.

    A condition with fewer than `share` of the clips of its machine's largest one gets as many as that takes, but at
    most `factor` times its own; the others get none. domains: that get clips; None: all. count: of the clips of a row.
    """
    counts = {key: count(rows) for key, rows in normal_clips(clips).items()}
    largest: Counter[tuple[str, str]] = Counter()
    for key, number in counts.items():
        largest[key.corpus, key.machine] = max(largest[key.corpus, key.machine], number)
    conditions = []
    for key, number in counts.items():
        most = largest[key.corpus, key.machine]
        lacking = math.ceil(share * most) - number if domains is None or key.domain in domains else 0
        conditions.append(Condition(key, number, most, max(0, min(lacking, math.floor(factor * number), MOST))))
    return conditions


def write_conditions(conditions: Iterable[Condition], file: Path) -> None:
    """Write the table as CSV, for people and `read_conditions`."""
    lines = [csv_line(COLUMNS)]
    for row in conditions:
        key = row.key._replace(attributes=attributes_text(row.key.attributes))  # type: ignore[arg-type]
        lines.append(csv_line((*key, row.clips, row.largest, row.generate)))
    write_atomically(file, ("\n".join(lines) + "\n").encode())


def read_conditions(file: Path) -> list[Condition]:
    """The table of `write_conditions`, as it was written or edited.

    `clips` and `largest` are 0 where the columns are left out. Raises HarkenError, naming the line, for what is not
    such a table, a condition that occurs twice, and numbers that are not whole or more than `MOST`.
    """
    rows = read_csv(file, "Begin with the table of a rare_conditions stage")
    if not rows:
        raise _wrong(file, 1, "has no header", f"It has the columns {', '.join(COLUMNS)}")
    header = [cell.strip() for cell in rows[0].cells]
    unknown = next((name for name in header if name not in COLUMNS), None)
    missing = next((name for name in _NEEDED if name not in header), None)
    if unknown is not None or missing is not None or len(set(header)) < len(header):
        cause = f"has an unknown column {unknown!r}" if unknown is not None else f"has no column {missing!r}"
        cause = cause if unknown or missing else "has a column twice"
        raise _wrong(file, rows[0].line, cause, f"It has the columns {', '.join(COLUMNS)}")
    conditions: dict[ConditionKey, Condition] = {}
    for row in rows[1:]:
        if len(row.cells) != len(header):
            raise _wrong(file, row.line, f"has {len(row.cells)} cells, the header {len(header)}", "Correct the line")
        cell = dict.fromkeys(COLUMNS, "") | dict(zip(header, row.cells, strict=True))
        if cell["domain"] not in ("source", "target", "unknown"):
            raise _wrong(file, row.line, f"there is no domain {cell['domain']!r}", "Write source, target or unknown")
        pairs = [pair.partition("=") for pair in cell["attributes"].split(";") if pair.strip()]
        if not all(equals and name.strip() for name, equals, _ in pairs):
            raise _wrong(file, row.line, f"{cell['attributes']!r} are no attributes", "Write them as spd=28V;mic=1")
        attributes = tuple(sorted((unquote(name.strip()), unquote(value.strip())) for name, _, value in pairs))
        key = ConditionKey(cell["corpus"], cell["machine"], cell["section"], cell["domain"], attributes)  # type: ignore[arg-type]
        if key in conditions:
            raise _wrong(file, row.line, f"{key} is there twice", "Leave one of the two")
        numbers = (_number(file, row.line, name, cell[name].strip()) for name in ("clips", "largest", "generate"))
        conditions[key] = Condition(key, *numbers)
    return list(conditions.values())


def edited(
    conditions: Sequence[Condition], table: Sequence[Condition], file: Path, *, unseen: bool = False
) -> tuple[list[Condition], list[str]]:
    """The conditions with the numbers of an edited table, 0 where it leaves one out; and notes on rows of machines that
    there are no clips of. unseen: rows of conditions that a machine does not have are taken over too, which otherwise
    raises HarkenError."""
    asked: Mapping[ConditionKey, int] = {row.key: row.generate for row in table}
    present = {row.key for row in conditions}
    machines = {(key.corpus, key.machine) for key in present}
    notes, more = [], []
    for key in sorted(asked.keys() - present):
        if unseen and (key.corpus, key.machine) in machines:
            largest = max(row.largest for row in conditions if row.key[:2] == key[:2])
            more.append(Condition(key, 0, largest, asked[key]))
            continue
        if (key.corpus, key.machine) in machines:
            raise HarkenError(
                f"there are no normal training clips of {key}", file=file,
                next_step=did_you_mean(str(key), map(str, present), "Name conditions of the training clips"),
            )  # fmt: skip
        notes.append(f"{file.name}: there are no training clips of {'/'.join(filter(None, key[:2]))}")
    rows = [Condition(row.key, row.clips, row.largest, asked.get(row.key, 0)) for row in conditions]
    return rows + more, sorted(set(notes))


def _number(file: Path, line: int, column: str, text: str) -> int:
    if not text and column != "generate":
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) > MOST:
        raise _wrong(file, line, f"its {column} is {text!r}", f"Write a whole number from 0 to {MOST:,}")
    return int(text)


def _wrong(file: Path, line: int, cause: str, next_step: str) -> HarkenError:
    return HarkenError(f"line {line}: {cause}", file=file, next_step=next_step)

"""The table of scores: a system's score per clip, and the marks that are shown wherever its numbers are."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.json_text import json_text
from harken.core.tables import REPEATED_PER_BYTE, cells_of_text, read_parquet
from harken.data.names import without_suffix
from harken.data.truth import Section

Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]
Split = Literal["train", "test"]
#: how score files are named: by section (2022-2026), by section and domain (2021), by machine ID (2020)
Layout = Literal["section", "domain", "id"]

SCHEMA = 1
#: the number used labels of the clips that it is computed on
TUNED = "tuned on test"
#: the number used labels of other test clips of the same machines
SEEN = "machines seen with labels"
#: the score of a clip depends on other test clips
TRANSDUCTIVE = "transductive"
#: weights that others chose and published
PUBLISHED = "published weights"
#: in the order in which they are shown
MARKS = (TUNED, SEEN, TRANSDUCTIVE, PUBLISHED)
#: on clips with one of these, no number is of machines whose labels are unknown to the system
USE_LABELS = frozenset({TUNED, SEEN})

UNDECIDED = -1
_METADATA = b"harken_scores"
_COLUMNS = ("clip_id", "file", "machine", "section", "split")


class ScoreRow(NamedTuple):
    """One clip of a table. decision: 1 anomalous, 0 normal, -1 undecided."""

    clip_id: str
    file: str
    machine: str
    section: str
    split: Split
    score: float
    decision: int = UNDECIDED


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one system (on one set with one seed): one row per clip, columns as tuples and arrays of one length.

    clip_id: as in the clips table; where scores come from score files, made of machine, section and name. file: name of
    the recording, joined on without its ending. split: `test`, or `train` for the held-out score of a training clip,
    from a model fitted without it. score_N: float64, higher = more anomalous. decision_N: 1 anomalous, 0 normal,
    -1 undecided.

    system, set, seed: as far as known. marks: shown wherever its numbers are, mark -> reason. digest: of all inputs.
    fitted_on: whether one model is fitted per section or per machine, to whose held-out scores test scores are
    compared. layout: of its score files.

    Raises HarkenError for columns of different lengths, a score that is not finite, a repeated clip.
    """

    system: str
    clip_id: tuple[str, ...]
    file: tuple[str, ...]
    machine: tuple[str, ...]
    section: tuple[str, ...]
    split: tuple[Split, ...]
    score_N: Float64
    decision_N: Int8
    set: str = ""
    seed: int | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    fitted_on: Literal["section", "machine"] = "section"
    layout: Layout = "section"

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in _COLUMNS}
        if lengths != {len(self.score_N)} or self.decision_N.shape != self.score_N.shape:
            raise self._refusal("its columns differ in length", "Give every clip one row")
        if not np.isfinite(self.score_N).all():
            row = int(np.flatnonzero(~np.isfinite(self.score_N))[0])
            raise self._refusal(f"the score of {self.names[row]} is {self.score_N[row]}", "Scores are finite")
        if not np.isin(self.decision_N, (UNDECIDED, 0, 1)).all():
            row = int(np.flatnonzero(~np.isin(self.decision_N, (UNDECIDED, 0, 1)))[0])
            raise self._refusal(f"{self.names[row]} has the decision {self.decision_N[row]}", "Decide 0 or 1")
        if not set(self.split) <= set(get_args(Split)):
            raise self._refusal(f"has clips of the split {min(set(self.split) - {'train', 'test'})!r}", "train or test")
        for keys in (zip(self.machine, self.section, self.split, self.names, strict=True), self.clip_id):
            seen = set()
            for key, name in zip(keys, self.names, strict=True):
                if key in seen:
                    raise self._refusal(f"{name} occurs twice", "Keep one row per clip")
                seen.add(key)

    def _refusal(self, cause: str, next_step: str) -> HarkenError:
        return HarkenError(cause, file=self.system or "scores", next_step=next_step)

    @classmethod
    def of_rows(cls, rows: Iterable[ScoreRow], system: str = "", **fields: Any) -> Scores:
        """A table of rows; fields: the other fields."""
        columns = list(zip(*rows, strict=True)) or [()] * len(ScoreRow._fields)
        texts: dict[str, Any] = dict(zip(_COLUMNS, columns, strict=False))
        score_N, decision_N = (
            np.array(column, dtype) for column, dtype in zip(columns[5:], (np.float64, np.int8), strict=True)
        )
        return cls(system, **texts, score_N=score_N, decision_N=decision_N, **fields)

    @classmethod
    def joined(cls, tables: Sequence[Scores], system: str = "", **fields: Any) -> Scores:
        """The rows of all tables in their order, with the marks of all of them; fields: the other fields.

        With one table fitted on whole machines, the joined table is `fitted_on` machines.
        """
        fields.setdefault("marks", merged_marks(table.marks for table in tables))
        fields.setdefault("digest", digest_of([table.digest for table in tables]))
        wide = any(table.fitted_on == "machine" for table in tables)
        fields.setdefault("fitted_on", "machine" if wide else "section")
        texts: dict[str, Any] = {
            name: tuple(chain.from_iterable(getattr(table, name) for table in tables)) for name in _COLUMNS
        }
        scores = [table.score_N for table in tables] or [np.empty(0)]
        decisions = [table.decision_N for table in tables] or [np.empty(0, dtype=np.int8)]
        return cls(system, **texts, score_N=np.concatenate(scores), decision_N=np.concatenate(decisions), **fields)

    def __len__(self) -> int:
        return len(self.score_N)

    def __eq__(self, table: object) -> bool:
        """Whether rows, their order and all fields are equal."""
        if not isinstance(table, Scores):
            return NotImplemented
        return self._fields() == table._fields() and all(
            first == second for first, second in zip(self.rows(), table.rows(), strict=False)
        )

    __hash__ = None  # type: ignore[assignment]

    def rows(self) -> list[ScoreRow]:
        """In the order of the table."""
        columns = (getattr(self, name) for name in _COLUMNS)
        return list(map(ScoreRow._make, zip(*columns, self.score_N.tolist(), self.decision_N.tolist(), strict=True)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Files without suffix, on which scores and labels are joined."""
        return tuple(map(without_suffix, self.file))

    @property
    def test(self) -> Scores:
        """The scores of test clips."""
        return self.of_split("test")

    @property
    def train(self) -> Scores:
        """The held-out scores of training clips."""
        return self.of_split("train")

    def of_split(self, split: Split) -> Scores:
        """The rows of a split, in the order of the table."""
        return self.take([row for row, of in enumerate(self.split) if of == split])

    def take(self, numbers: Sequence[int]) -> Scores:
        """The rows of these indices, in their order."""
        columns: dict[str, Any] = {
            name: tuple(column[row] for row in numbers)
            for name, column in ((name, getattr(self, name)) for name in _COLUMNS)
        }
        index = np.asarray(numbers, dtype=np.intp)
        return replace(self, **columns, score_N=self.score_N[index], decision_N=self.decision_N[index])

    def sections(self, split: Split = "test") -> tuple[Section, ...]:
        """(machine, section) of every section with clips of the split, sorted."""
        return tuple(sorted(key for key, of in self._numbers if of == split))

    def of_section(self, key: Section, split: Split = "test") -> Scores:
        """The rows of one section and split, in the order of their names; empty without any."""
        if (key, split) not in self._by_section:
            self._by_section[key, split] = self.take(self._numbers.get((key, split), ()))
        return self._by_section[key, split]

    def held_out(self, key: Section) -> Scores:
        """The training clips to which a section's scores are compared: of the section, or of the whole machine as
        `fitted_on` says; in the order of their names, empty where unknown."""
        if self.fitted_on == "section":
            return self.of_section(key, "train")
        machine_key: Section = (key[0], "")
        if (machine_key, "train") not in self._by_section:
            rows = [row for of, split in sorted(self._numbers) if split == "train" and of[0] == key[0]
                    for row in self._numbers[of, split]]  # fmt: skip
            self._by_section[machine_key, "train"] = self.take(rows)
        return self._by_section[machine_key, "train"]

    def by_name(self, key: Section, split: Split = "test") -> dict[str, float]:
        """Name -> score of one section and split, in the order of names."""
        rows = self.of_section(key, split)
        return dict(zip(rows.names, rows.score_N.tolist(), strict=True))

    def decisions(self, key: Section) -> dict[str, int]:
        """Name -> decision of the decided test clips of one section, in the order of names."""
        rows = self.of_section(key)
        return {name: made for name, made in zip(rows.names, rows.decision_N.tolist(), strict=True) if made >= 0}

    @property
    def label(self) -> str:
        """Name of the system with its marks."""
        return self.system + in_brackets(self.marks)

    def marked(self, marks: Mapping[str, str]) -> Scores:
        """The same with further marks; existing reasons are kept."""
        return replace(self, marks=merged_marks([self.marks, marks]))

    def to_arrow(self) -> Any:
        """As a `pyarrow.Table`, with `set`, `system`, `seed` and `marks` as columns."""
        return _arrow([self])

    @cached_property
    def _numbers(self) -> dict[tuple[Section, Split], list[int]]:
        """Rows of every section and split, in the order of names."""
        numbers: dict[tuple[Section, Split], list[int]] = {}
        keys = zip(self.machine, self.section, self.split, strict=True)
        for row, (machine, section, split) in enumerate(keys):
            numbers.setdefault(((machine, section), split), []).append(row)
        return {key: sorted(rows, key=self.names.__getitem__) for key, rows in numbers.items()}

    @cached_property
    def _by_section(self) -> dict[tuple[Section, Split], Scores]:
        return {}

    def _fields(self) -> dict[str, Any]:
        return {
            "system": self.system, "set": self.set, "seed": self.seed, "marks": dict(self.marks), "digest": self.digest,
            "fitted_on": self.fitted_on, "layout": self.layout, "rows": len(self),
        }  # fmt: skip


def merged_marks(marks: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Every mark once, with the first reason, in a fixed order."""
    merged: dict[str, str] = {}
    for some in marks:
        for mark, reason in some.items():
            merged.setdefault(mark, reason)
    return {mark: merged[mark] for mark in sorted(merged, key=_mark_order)}


def in_brackets(marks: Iterable[str]) -> str:
    """` (tuned on test, transductive)`, or nothing."""
    words = ", ".join(sorted(marks, key=_mark_order))
    return f" ({words})" if words else ""


def _mark_order(mark: str) -> tuple[bool, str]:
    return mark != TUNED, mark


def digest_of(data: Any) -> str:
    """SHA-256 of JSON data, in hexadecimal digits."""
    return hashlib.sha256(json_text(data, sort_keys=True).encode()).hexdigest()


def write_scores(tables: Scores | Sequence[Scores], file: Path) -> None:
    """Write tables as one parquet file, atomically."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    with cells_of_text(file):
        table = _arrow([tables] if isinstance(tables, Scores) else tables)
    pq.write_table(table, sink, compression="zstd")
    write_atomically(file, sink.getvalue())


def read_scores(file: Path) -> list[Scores]:
    """Tables written by `write_scores`. Raises HarkenError for anything else."""
    import pyarrow as pa

    try:
        table = read_parquet(file, per_byte=REPEATED_PER_BYTE)
        metadata = json.loads((table.schema.metadata or {})[_METADATA])
        if metadata["schema"] != SCHEMA:
            raise HarkenError("is a table of scores of another version", file=file, next_step="Run the recipe again")
        return list(_tables(table, metadata["tables"]))
    except FileNotFoundError:
        raise HarkenError("there is no such file", file=file, next_step="Run the recipe again") from None
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise HarkenError(f"is not a table of scores ({reason})", file=file, next_step="Run the recipe again") from None


def _tables(table: Any, records: Sequence[Mapping[str, Any]]) -> Iterator[Scores]:
    """Tables of these records, one after the other. KeyError, ValueError or TypeError where it is none."""
    columns = {name: table.column(name).to_pylist() for name in _COLUMNS}
    if any(None in column for column in columns.values()):
        raise ValueError("it has empty cells")
    score_N = table.column("score").to_numpy()
    decision_N = table.column("decision").fill_null(UNDECIDED).to_numpy().astype(np.int8)
    start = 0
    for record in records:
        fields = {name: value for name, value in record.items() if name != "rows"}
        inside = slice(start, start := start + int(record["rows"]))
        texts: dict[str, Any] = {name: tuple(column[inside]) for name, column in columns.items()}
        yield Scores(**fields, **texts, score_N=score_N[inside], decision_N=decision_N[inside])
    if start != len(score_N):
        raise ValueError(f"{len(score_N)} rows instead of {start}")


def is_table_of_scores(file: Path) -> bool:
    """Whether `write_scores` wrote it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _METADATA in (pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _arrow(tables: Sequence[Scores]) -> Any:
    import pyarrow as pa

    counts = [len(table) for table in tables]

    def repeated(values: Iterable[Any], kind: Any) -> Any:
        return pa.array(np.repeat(np.array(list(values), dtype=object), counts).tolist(), kind)

    text = pa.string()
    columns = {
        "set": repeated((table.set for table in tables), text),
        "system": repeated((table.system for table in tables), text),
        "seed": repeated((table.seed for table in tables), pa.int64()),
    }
    for name in _COLUMNS:
        columns[name] = pa.array(list(chain.from_iterable(getattr(table, name) for table in tables)), text)
    columns["score"] = pa.array(np.concatenate([np.empty(0), *(table.score_N for table in tables)]), pa.float64())
    made = np.concatenate([np.empty(0, dtype=np.int8), *(table.decision_N for table in tables)])
    columns["decision"] = pa.array(made, pa.int8(), mask=made == UNDECIDED)
    columns["marks"] = repeated(("; ".join(table.marks) for table in tables), text)
    metadata = {"schema": SCHEMA, "tables": [table._fields() for table in tables]}
    return pa.table(columns).replace_schema_metadata({_METADATA: json_text(metadata).encode()})

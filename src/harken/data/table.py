"""The clips table on disk: parquet, one row per clip."""

from __future__ import annotations

import io
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.core.tables import REPEATED_PER_BYTE, cells_of_text, read_parquet
from harken.data.clips import Clip, Condition, Domain, Kind, Payload, Split

#: increased when columns change; SCHEMA 1, without parents and payload, is still read
SCHEMA = 2
_STRINGS = ("clip_id", "path", "corpus", "split", "machine", "section", "domain", "condition", "kind", "payload")
_NUMBERS = ("year", "sample_rate", "channels", "frames")
#: what columns of closed sets say
_CHOICES: dict[str, set[str | None]] = {
    "split": {None, *get_args(Split)},
    "domain": {*get_args(Domain)},
    "condition": {*get_args(Condition)},
    "kind": {*get_args(Kind)},
    "payload": {*get_args(Payload)},
}
_SINCE_2 = frozenset({"payload", "parents"})


def write_table(clips: Sequence[Clip], file: Path, *, beside: bool = False) -> None:
    """Write the clips atomically, with absolute paths.

    beside: the clips' files are in the table's folder, and paths are relative to it, so that it can be moved.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for clip in clips:
        check_utf8(clip.path)
    fields = (*_STRINGS, *_NUMBERS, "attributes", "parents")
    rows = map(attrgetter(*fields), clips)
    cells = dict(zip(fields, zip(*rows, strict=True), strict=True)) if clips else {}
    paths = [path if path.is_absolute() else path.absolute() for path in cells.get("path", ())]
    if beside:
        paths = [path.relative_to(file.parent.absolute()) for path in paths]
    written = {
        **cells,
        "path": list(map(str, paths)),
        "attributes": [list(attributes.items()) for attributes in cells.get("attributes", ())],
        "parents": list(map(list, cells.get("parents", ()))),
    }
    with cells_of_text(file):
        columns = {name: pa.array(written.get(name, ()), kind) for name, kind in _types()}
    table = pa.table(columns).replace_schema_metadata({"harken_clips": str(SCHEMA)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, sink.getvalue())


def _types() -> list[tuple[str, Any]]:
    """Columns and their types, in order."""
    import pyarrow as pa

    return [
        *((name, pa.string()) for name in _STRINGS),
        ("attributes", pa.map_(pa.string(), pa.string())),
        *((name, pa.int64()) for name in _NUMBERS),
        ("parents", pa.list_(pa.string())),
    ]


def check_utf8(path: Path) -> None:
    """Raise HarkenError for a file whose name is not UTF-8, which no table can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise HarkenError(
            "has a name that is not UTF-8, which tables cannot hold", file=path, next_step="Rename it"
        ) from None


def read_table(file: Path) -> list[Clip]:
    """Read a table of `write_table`, of this schema or the one before. Raises HarkenError for anything else."""
    import pyarrow as pa

    try:
        table = read_parquet(file, per_byte=REPEATED_PER_BYTE)
    except FileNotFoundError as error:
        raise HarkenError("there is no such file", file=file, next_step="Create it: harken data index ROOT") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise HarkenError(
            f"is not a clips table ({error})", file=file, next_step="Create it again: harken data index"
        ) from error
    version = (table.schema.metadata or {}).get(b"harken_clips")
    expected = dict(_types() if version != b"1" else [entry for entry in _types() if entry[0] not in _SINCE_2])
    types = dict(zip(table.schema.names, table.schema.types, strict=True))
    if version not in (b"1", str(SCHEMA).encode()) or types != expected:
        raise HarkenError(
            "is not a clips table of this version", file=file, next_step="Create it again: harken data index ROOT"
        )
    step = "Create it again: harken data index ROOT"
    for name in table.column_names:
        if name not in (*_NUMBERS, "split") and table.column(name).null_count:
            raise HarkenError(f"has rows without {name}", file=file, next_step=step)
    for name, choices in _CHOICES.items():
        if name in table.column_names and (unknown := set(table.column(name).to_pylist()) - choices):
            raise HarkenError(f"has the {name} {sorted(map(str, unknown))[0]!r}", file=file, next_step=step)
    folder = file.parent.absolute()
    return [
        Clip(**{
            **row,
            "path": folder / row["path"],
            "attributes": dict(row["attributes"]),
            "parents": tuple(row.get("parents", ())),
        })
        for row in table.to_pylist()
    ]  # fmt: skip

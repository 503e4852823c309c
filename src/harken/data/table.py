"""The clips table on disk: parquet, one row per clip."""

from __future__ import annotations

import io
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from harken.core.errors import HarkenError
from harken.core.files import write_atomically
from harken.data.clips import Clip

#: increased when columns change; SCHEMA 1, without parents and payload, is still read
SCHEMA = 2
_STRINGS = ("clip_id", "path", "corpus", "split", "machine", "section", "domain", "condition", "kind", "payload")
_NUMBERS = ("year", "sample_rate", "channels", "frames")


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
    columns = {name: pa.array(cells.get(name, ()), pa.string()) for name in _STRINGS if name != "path"}
    paths = [path if path.is_absolute() else path.absolute() for path in cells.get("path", ())]
    if beside:
        paths = [path.relative_to(file.parent.absolute()) for path in paths]
    columns["path"] = pa.array(list(map(str, paths)), pa.string())
    columns |= {name: pa.array(cells.get(name, ()), pa.int64()) for name in _NUMBERS}
    pairs = [list(attributes.items()) for attributes in cells.get("attributes", ())]
    columns["attributes"] = pa.array(pairs, pa.map_(pa.string(), pa.string()))
    columns["parents"] = pa.array(list(map(list, cells.get("parents", ()))), pa.list_(pa.string()))
    order = [*_STRINGS, "attributes", *_NUMBERS, "parents"]
    table = pa.table({name: columns[name] for name in order}).replace_schema_metadata({"harken_clips": str(SCHEMA)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, sink.getvalue())


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
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except FileNotFoundError as error:
        raise HarkenError("there is no such file", file=file, next_step="Create it: harken data index ROOT") from error
    except (OSError, pa.ArrowException) as error:
        raise HarkenError(
            f"is not a clips table ({error})", file=file, next_step="Create it again: harken data index"
        ) from error
    version = (table.schema.metadata or {}).get(b"harken_clips")
    if version not in (b"1", str(SCHEMA).encode()):
        raise HarkenError(
            "is not a clips table of this version", file=file, next_step="Create it again: harken data index ROOT"
        )
    rows = table.to_pylist()
    for row in rows:
        row["path"] = file.parent.absolute() / row["path"]
        row["attributes"] = dict(row["attributes"])
        row["parents"] = tuple(row.get("parents", ()))
    return [Clip(**row) for row in rows]

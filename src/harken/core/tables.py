"""Tables on disk: CSV, also packed as `.csv.gz`, and parquet; what is read stays in proportion to the file."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harken.core.errors import HarkenError, reading
from harken.core.names import shown

#: bytes that a packed table may unpack to, at least, and per byte of the file; scores pack 3 times, names 20 times
UNPACKED, UNPACKED_PER_BYTE = 2**24, 50
#: the same of tables of clips, whose names and attributes repeat: those of a whole year pack 120 times
REPEATED_PER_BYTE = 500
#: rows read from parquet at once, and the longest cells of a fixed size
_BATCH, _MOST_FIXED_BYTES = 1024, 256


class TableRow(NamedTuple):
    """Cells of a row and the line on which it begins, counted from 1."""

    line: int
    cells: list[str]


def read_csv(file: Path, next_step: str = "Write it again") -> list[TableRow]:
    """Rows of a comma-separated table in UTF-8, `.csv` or `.csv.gz`; rows without text are left out.

    Raises HarkenError for a file that cannot be read, is not UTF-8, has NUL characters or quotes that do not close, or
    unpacks to far more than its size.
    """
    with reading(file, next_step, errors=(ValueError, csv.Error, EOFError, zlib.error)):
        data = _unpacked(file) if file.suffix.lower() == ".gz" else file.read_bytes()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise HarkenError(
                f"cannot be read (line {line} is not text in UTF-8)", file=file, next_step=next_step
            ) from None
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise HarkenError(f"line {line} has a NUL character", file=file, next_step=next_step)
        # Strict: a quote that is never closed would take the rest of the file for one cell.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        return list(_rows(reader))


def csv_line(cells: Iterable[object]) -> str:
    """Cells as one line of CSV without its end, quoted where they have commas, quotes or line ends."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # quotes the characters of its line end, too
    return text.getvalue().removesuffix("\r\n")


@contextmanager
def cells_of_text(file: Path) -> Iterator[None]:
    """Within it, text that is not UTF-8, as names of files may be, is a HarkenError: no table can hold it."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise HarkenError(
            f"cannot be written: the name {shown(error.object)} is not UTF-8, which tables cannot hold", file=file,
            next_step="Rename what it names",
        ) from None  # fmt: skip


def read_parquet(file: Path, columns: Sequence[str] | None = None, *, per_byte: int = UNPACKED_PER_BYTE) -> Any:
    """A `pyarrow.Table`. Raises OSError or ArrowException where it cannot be read or has text that is not UTF-8,
    HarkenError where it unpacks to far more than its size or has two columns of one name.

    per_byte: bytes of the table per byte of the file, beyond which it is refused.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches, size, most = [], 0, _most(file, per_byte)
    with pq.ParquetFile(file) as source:
        schema, leaves = source.schema_arrow, [source.schema.column(number) for number in range(len(source.schema))]
    for name, count in Counter(schema.names).items():
        if count > 1:
            raise HarkenError(f"has {count} columns {shown(name)}", file=file, next_step="Write each column once")
    for leaf in leaves:
        if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" and leaf.length > _MOST_FIXED_BYTES:
            raise HarkenError(
                f"has cells of {leaf.length:,} bytes", file=file, next_step="Write the column as numbers or text"
            )
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type != "DECIMAL"]
    fields = [field for field in schema if columns is None or field.name in columns]
    plain = pa.schema([field.with_type(_plain_type(field.type)) for field in fields], schema.metadata)
    # As dictionaries, so that a text that is repeated a million times is there once until its size is known.
    with pq.ParquetFile(file, read_dictionary=texts) as source:
        for batch in source.iter_batches(_BATCH, columns=columns):
            size += sum(map(_plain_bytes, batch.columns))
            if size > most:
                raise _too_large(file, most)
            cells = [batch.column(field.name).cast(field.type) for field in plain]
            batches.append(pa.RecordBatch.from_arrays(cells, schema=plain))
    table = pa.Table.from_batches(batches, plain).combine_chunks()
    table.validate(full=True)
    return table if columns is None else table.select(columns)


def _plain_type(kind: Any) -> Any:
    """The type of a column that is no dictionary any more."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _plain_bytes(column: Any) -> int:
    """Bytes of a column once no part of it is a dictionary any more."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_map(column.type):
        return 4 * len(column) + _plain_bytes(column.keys) + _plain_bytes(column.items)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return 8 * len(column) + _plain_bytes(column.flatten())
    if pa.types.is_struct(column.type):
        return len(column) + sum(map(_plain_bytes, column.flatten()))
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    values = column.dictionary
    if not (
        pa.types.is_string(values.type)
        or pa.types.is_binary(values.type)
        or pa.types.is_large_string(values.type)
        or pa.types.is_large_binary(values.type)
    ):
        return int(values.nbytes // max(len(values), 1) * len(column))
    return 8 * len(column) + int(pc.sum(pc.take(pc.binary_length(values), column.indices)).as_py() or 0)


def _rows(reader: Any) -> Iterator[TableRow]:
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield TableRow(line, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote that is never closed" if "end of data" in str(error) else error
        raise csv.Error(f"the row that begins on line {line}: {reason}") from error


def _unpacked(file: Path) -> bytes:
    most = _most(file, UNPACKED_PER_BYTE)
    with gzip.open(file) as handle:
        data = handle.read(most + 1)
    if len(data) > most:
        raise _too_large(file, most)
    return data


def _most(file: Path, per_byte: int) -> int:
    return max(UNPACKED, per_byte * file.stat().st_size)


def _too_large(file: Path, most: int) -> HarkenError:
    return HarkenError(
        f"unpacks to more than {most / 2**20:.0f} MiB, {most / max(file.stat().st_size, 1):.0f} times its size",
        file=file, next_step="Check where it is from; unpack it first if it is right",
    )  # fmt: skip

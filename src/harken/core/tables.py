"""Tables on disk: CSV, also packed as `.csv.gz`, and parquet; what is read stays in proportion to the file."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harken.core.errors import HarkenError, reading

#: bytes that a packed table may unpack to, at least, and per byte of the file; scores pack 3 times, names 20 times
UNPACKED, UNPACKED_PER_BYTE = 2**24, 50
#: rows read from parquet at once
_BATCH = 1024


class TableRow(NamedTuple):
    """Cells of a row and the line on which it begins, counted from 1."""

    line: int
    cells: list[str]


def read_csv(file: Path, next_step: str = "Write it again") -> list[TableRow]:
    """Rows of a comma-separated table in UTF-8, `.csv` or `.csv.gz`; rows without text are left out.

    Raises HarkenError for a file that cannot be read, is no text, has NUL characters or quotes that do not close, or
    unpacks to far more than its size.
    """
    with reading(file, next_step, errors=(ValueError, csv.Error, EOFError, zlib.error)):
        text = (_unpacked(file) if file.suffix.lower() == ".gz" else file.read_bytes()).decode("utf-8-sig")
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


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> Any:
    """A `pyarrow.Table`. Raises OSError or ArrowException where it cannot be read, HarkenError where it unpacks to far
    more than its size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches, size, most = [], 0, _most(file)
    with pq.ParquetFile(file) as source:
        schema = source.schema_arrow
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
    # As dictionaries, so that a text that is repeated a million times is there once until its size is known.
    with pq.ParquetFile(file, read_dictionary=texts) as source:
        for batch in source.iter_batches(_BATCH, columns=columns):
            size += sum(map(_plain_bytes, batch.columns))
            if size > most:
                raise _too_large(file, most)
            plain = [_plain(column) for column in batch.columns]
            batches.append(pa.RecordBatch.from_arrays(plain, names=batch.schema.names))
    fields = schema if columns is None else [schema.field(name) for name in columns]
    plain_fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in fields
    ]
    return pa.Table.from_batches(batches, pa.schema(plain_fields, schema.metadata)).combine_chunks()


def _plain_bytes(column: Any) -> int:
    """Bytes of a column once it is no dictionary any more."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    values = column.dictionary
    if not (
        pa.types.is_string(values.type) or pa.types.is_binary(values.type) or pa.types.is_large_string(values.type)
    ):
        return int(values.nbytes // max(len(values), 1) * len(column))
    return 8 * len(column) + int(pc.sum(pc.take(pc.binary_length(values), column.indices)).as_py() or 0)


def _plain(column: Any) -> Any:
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _rows(reader: Any) -> Iterator[TableRow]:
    line = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield TableRow(line, cells)
        line = reader.line_num + 1


def _unpacked(file: Path) -> bytes:
    most = _most(file)
    with gzip.open(file) as handle:
        data = handle.read(most + 1)
    if len(data) > most:
        raise _too_large(file, most)
    return data


def _most(file: Path) -> int:
    return max(UNPACKED, UNPACKED_PER_BYTE * file.stat().st_size)


def _too_large(file: Path, most: int) -> HarkenError:
    return HarkenError(
        f"unpacks to more than {most / 2**20:.0f} MiB, {most / max(file.stat().st_size, 1):.0f} times its size",
        file=file, next_step="Check where it is from; unpack it first if it is right",
    )  # fmt: skip

"""Tables on disk: lines are counted as an editor does, columns are what they were, and every type is bounded."""

from __future__ import annotations

import decimal
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harken.core.errors import HarkenError
from harken.core.tables import TableRow, cells_of_text, csv_line, read_csv, read_parquet


def test_rows_have_the_lines_on_which_they_begin(tmp_path: Path) -> None:
    """After blank lines, and cells of several lines; a mark of the byte order is no part of the first name."""
    text = '\ufeffa,b\r\n\r\n , \r\n"two\nlines",1\r\n"a ""quote""",2\r\nlast,3'
    for name, data in (("t.csv", text.encode()), ("T.CSV.GZ", gzip.compress(text.encode()))):
        (tmp_path / name).write_bytes(data)
        assert read_csv(tmp_path / name) == [
            TableRow(1, ["a", "b"]), TableRow(4, ["two\nlines", "1"]), TableRow(6, ['a "quote"', "2"]),
            TableRow(7, ["last", "3"]),
        ]  # fmt: skip


def test_what_is_no_csv_is_refused_with_the_step_that_helps(tmp_path: Path) -> None:
    for name, data in (
        ("latin1.csv", b"a\xe4,b\n"),
        ("open.csv", b'a,"b\n'),
        ("cut.csv.gz", gzip.compress(b"a,b\n" * 99)[:-9]),
        ("no.csv.gz", b"a,b\n"),
        ("long.csv", b"x" * 200_000 + b",1\n"),  # longer than a cell may be
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(HarkenError, match=rf"{name}: cannot be read.* Ask the sender\."):
            read_csv(tmp_path / name, "Ask the sender")
    (tmp_path / "open.csv").write_bytes(b'a,b\nc,d\n"e,f\ng,h\n')
    with pytest.raises(HarkenError, match="the row that begins on line 3: a quote that is never closed"):
        read_csv(tmp_path / "open.csv", "Ask the sender")
    (tmp_path / "nul.csv").write_bytes(b"a,b\nc,d\0\n")
    with pytest.raises(HarkenError, match=r"line 2 has a NUL character\. Ask the sender\."):
        read_csv(tmp_path / "nul.csv", "Ask the sender")


def test_lines_are_quoted_where_they_must_be() -> None:
    assert csv_line(("a.wav", 0.1)) == "a.wav,0.1"
    assert csv_line(("a,b", 'c"d', "e\nf", "g\rh", 1)) == '"a,b","c""d","e\nf","g\rh",1'


def test_packed_tables_may_be_many_times_as_long_as_their_files(tmp_path: Path) -> None:
    """16 MiB are read, however small the file; beyond, fifty times its size."""
    line = b"1" * 9_999 + b"\n"
    for rows in (1_677, 1_678):
        (tmp_path / "t.csv.gz").write_bytes(gzip.compress(line * rows))
        if rows * len(line) <= 2**24:
            assert len(read_csv(tmp_path / "t.csv.gz")) == rows
    with pytest.raises(HarkenError, match=r"unpacks to more than 16 MiB, \d+ times its size"):
        read_csv(tmp_path / "t.csv.gz")
    noise = np.random.default_rng(0).bytes(400_000).hex().encode()
    (tmp_path / "t.csv.gz").write_bytes(
        gzip.compress(line * 1_700 + b"".join(noise[i : i + 9_999] + b"\n" for i in range(0, len(noise), 9_999)))
    )
    assert len(read_csv(tmp_path / "t.csv.gz")) == 1_700 + 81


LONG = "0" * 2**16
#: columns whose cells repeat a long text, or a long list, so that the file is small
BOMBS: dict[str, pa.Array] = {
    "text": pa.array([LONG]),
    "large text": pa.array([LONG], pa.large_string()),
    "bytes": pa.array([LONG.encode()]),
    "large bytes": pa.array([LONG.encode()], pa.large_binary()),
    "dictionary": pa.array([LONG]).dictionary_encode(),
    "list": pa.array([[LONG]]),
    "large list": pa.array([[LONG]], pa.large_list(pa.string())),
    "record": pa.array([{"a": LONG, "b": 1}]),
    "map": pa.array([[("a", LONG)]], pa.map_(pa.string(), pa.string())),
    "keys": pa.array([[(LONG, "a")]], pa.map_(pa.string(), pa.string())),
    "numbers": pa.array([[0.0] * 2**13]),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_columns_of_every_type_are_bounded(tmp_path: Path, kind: str) -> None:
    """16 MiB are read, also of a file of few bytes; 75 MiB, or what is more than the given bytes per byte, are not."""
    column, file = BOMBS[kind], tmp_path / "t.parquet"

    def store(rows: int) -> None:
        table = pa.table({"n": np.arange(rows), "x": pa.chunked_array([pa.concat_arrays([column] * rows)])})
        pq.write_table(table, file, compression="zstd")

    store(1_200)
    with pytest.raises(HarkenError, match="unpacks to more than 16 MiB"):
        read_parquet(file, per_byte=1)
    assert read_parquet(file, ["n"], per_byte=1).num_rows == 1_200
    store(100)
    table = read_parquet(file, per_byte=1)
    plain = column.dictionary_decode() if kind == "dictionary" else column
    assert table.column_names == ["n", "x"]
    assert table.column("x").to_pylist() == plain.to_pylist() * 100
    assert not pa.types.is_dictionary(table.schema.field("x").type)


def test_long_texts_among_many_short_ones_are_counted(tmp_path: Path) -> None:
    cells = [LONG if row % 10 == 0 else str(row) for row in range(6_000)]
    pq.write_table(pa.table({"x": cells}), tmp_path / "t.parquet")
    with pytest.raises(HarkenError, match="unpacks to more than 16 MiB"):
        read_parquet(tmp_path / "t.parquet", per_byte=1)


def test_columns_come_in_the_order_asked_for_and_as_what_they_were(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "s": pa.array(["a", None, "a"]), "i": pa.array([1, 2, None], pa.int8()),
        "d": pa.array([decimal.Decimal("1.5")] * 3), "f": pa.array([b"x" * 256] * 3, pa.binary(256)),
        "e": pa.array(["x", "y", "x"]).dictionary_encode(), "g": pa.array([7, None, 7]).dictionary_encode(),
        "h": pa.nulls(3, pa.dictionary(pa.int32(), pa.int64())),
    }  # fmt: skip
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), file)
    read = read_parquet(file)
    for name, column in columns.items():
        plain = column.dictionary_decode() if name in "egh" else column
        assert (read.column(name).to_pylist(), read.schema.field(name).type) == (plain.to_pylist(), plain.type)
    assert read_parquet(file, ["i", "s"]).column_names == ["i", "s"]
    pq.write_table(pa.table(columns).slice(0, 0), file)
    assert read_parquet(file).num_rows == 0
    pq.write_table(pa.table({"f": pa.array([b"x" * 257] * 3, pa.binary(257))}), file)
    with pytest.raises(HarkenError, match="has cells of 257 bytes"):
        read_parquet(file)
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), file)
    with pytest.raises(HarkenError, match="has 2 columns a"):
        read_parquet(file)


def test_names_that_are_not_utf8_are_no_cells(tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match=r"the name L\\xfcfter is not UTF-8"), cells_of_text(tmp_path / "t.parquet"):
        "L\udcfcfter".encode()

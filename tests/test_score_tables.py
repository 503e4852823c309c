"""Tables of scores: every cell is read as what it is, or refused with its line."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harken.core.errors import HarkenError
from harken.core.numbers import read_number
from harken.core.tables import csv_line, read_csv, read_parquet
from harken.data.cells import read_anomaly, read_clip
from harken.data.clips import Clip
from harken.data.names import without_suffix
from harken.data.table import read_table, write_table
from harken.evaluation.evaluate import evaluate
from harken.evaluation.score_tables import read_score_table
from harken.evaluation.scores import ScoreRow, Scores, read_scores, write_scores

HEAD = ("machine", "section", "file", "domain", "anomaly", "a")
ROWS = [
    ("fan", "00", f"c{n}.wav", ("source", "target")[n % 2], str(int(n % 4 > 1)), f"{(n * 7) % 5 + n % 4}.5")
    for n in range(16)
]


def written(file: Path, rows: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> Path:
    with file.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([head, *rows])
    return file


def with_cell(line: int, column: str, cell: str) -> list[list[str]]:
    rows = [list(row) for row in ROWS]
    rows[line - 2][HEAD.index(column)] = cell
    return rows


@pytest.mark.parametrize(
    ("normal", "anomaly"),
    [("0", "1"), ("false", "true"), ("FALSE", "TRUE"), ("normal", "anomaly"), (" 0", "Anomaly "), ("0.0", "1.0")],
)
def test_every_spelling_of_the_labels_gives_the_same_score(tmp_path: Path, normal: str, anomaly: str) -> None:
    expected = evaluate(written(tmp_path / "right.csv", ROWS)).results[0].official_score
    rows = [[*row[:4], (normal, anomaly)[int(row[4])], row[5]] for row in ROWS]
    assert evaluate(written(tmp_path / "same.csv", rows)).results[0].official_score == expected


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        *[("anomaly", cell, "is not a label") for cell in ("2", "", "1.00", "-1", "yes", "nan", "10", "\uff11")],
        *[("a", cell, "is not a number") for cell in ("1_000", "\uff11", "", "0,5", "0x10", "1 000", "True")],
        *[("a", cell, "is not a finite number") for cell in ("nan", "inf", "1e999")],
        *[("domain", cell, "is not a domain") for cell in ("sorce", "0", "target 1")],
        *[
            ("file", cell, "is more than the name")
            for cell in ("c1.wav;0", "c1.WAV\t3", "c1.wav 0", "c1;0", "c1.flac|")
        ],
        *[("file", cell, "names no clip") for cell in ("", " ", ".wav")],
        ("machine", " ", "is empty"),
    ],
)
def test_other_cells_are_refused_with_line_and_column(tmp_path: Path, column: str, cell: str, message: str) -> None:
    file = written(tmp_path / "t.csv", with_cell(5, column, cell))
    with pytest.raises(HarkenError, match=f"line 5, column {column}: .*{message}"):
        read_score_table(file)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (("machine", "section", "file", "a", "anomaly", "a"), "column 6 has the name 'a', as column 4"),
        (("machine", "section", "file", "anomaly", "Anomaly ", "a"), "column 5 has the name 'anomaly'"),
        (("", "machine", "section", "file", "anomaly", "a"), "column 1 has no name"),
        (("machine;section", "x", "file", "domain", "anomaly", "a"), "decimal points"),
    ],
)
def test_headers_that_could_be_mistaken_are_refused(tmp_path: Path, head: tuple[str, ...], message: str) -> None:
    with pytest.raises(HarkenError, match=message):
        read_score_table(written(tmp_path / "t.csv", ROWS, head))


def test_columns_are_found_by_name_and_cells_by_what_they_say(tmp_path: Path) -> None:
    head = ("b", " FILE ", "Anomaly", "a", "Section", "DOMAIN", "machine")
    rows = [
        ("1", "dev/fan/test/y.wav", "1", "-2", "section_01", " Source", "fan"),
        ("2", "x.wav", "normal", "3e2", "id_00", "", " u\u0308fan "),
        ("3", "x.flac", "TRUE", ".5", "01", "TARGET", "fan"),
    ]
    tables, truth = read_score_table(written(tmp_path / "t.csv", rows, head))
    assert [table.system for table in tables] == ["a", "b"]
    assert tables[0].sections() == (("fan", "01"), ("\u00fcfan", "00"))
    assert tables[0].by_name(("fan", "01")) == {"x": 0.5, "y": -2.0}
    assert tables[1].by_name(("\u00fcfan", "00")) == {"x": 2.0}
    assert truth is not None
    assert {clip: (label.anomaly, label.domain) for clip, label in truth.labels["fan", "01"].items()} == {
        "y": (True, "source"), "x": (True, "target")
    }  # fmt: skip
    assert truth.labels["\u00fcfan", "00"]["x"].domain == "unknown"
    assert read_score_table(written(tmp_path / "t.csv", [("fan", "00", "x", "1")], (*HEAD[:3], "a")))[1] is None
    only_labels = written(tmp_path / "t.csv", [("fan", "00", "x", "1", "1")], (*HEAD[:3], "anomaly", "a"))
    assert read_score_table(only_labels)[1].labels["fan", "00"]["x"].domain == "unknown"  # type: ignore[union-attr]


def test_tables_that_are_none_say_what_is_missing(tmp_path: Path) -> None:
    folder = r"Name a folder of anomaly_score_\*\.csv, or a table"
    for text, message in (
        ("", f"is empty. {folder}"),
        ("machine,file,a\n", "and has no section. Give a folder of"),
        ("machine;section;file;a\n", "and has no machine. Separate cells by commas"),
        ("machine\tsection\tfile\ta\n", "and has no machine. Separate cells by commas"),
        ("machine,section,file,domain,anomaly\n", "has no column with scores. Add one column per system"),
        ("machine,section,file,a\nfan,00,x,1\nfan,00,y.wav,1\n\nfan,section_00,x.wav,2\n",
         "line 5: fan: x occurs twice, first on line 2. Keep one row per clip"),
        ("machine,section,file,a\nfan,00,x\n", "line 2 .'fan,00,x'. has 3 cells, the header 4. Separate"),
        ("machine,section,file,a\nfan,00,x;,1\n", "line 2, column file: .*Separate"),
        ("machine,section,file,a\nfan,00,x,nil\n", "line 2, column a: .*Correct the cell"),
    ):  # fmt: skip
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(HarkenError, match=message):
            read_score_table(tmp_path / "t.csv")
    pq.write_table(pa.table({"machine": ["f", "f"], "section": ["0", "0"], "file": ["x", "y"], "a": [1.0, None]}),
                   tmp_path / "t.parquet")  # fmt: skip
    with pytest.raises(HarkenError, match="line 3, column a: '' is not a number"):
        read_score_table(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(HarkenError, match=r"cannot be read.*Write it again"):
        read_score_table(tmp_path / "t.parquet")
    for data in ("machine,section,file,a\nL\xfcfter,00,x,1\n".encode("latin-1"), b"m\n\xff\xfem\0"):
        (tmp_path / "t.csv").write_bytes(data)
        with pytest.raises(HarkenError, match="line 2 is not text in UTF-8"):
            read_score_table(tmp_path / "t.csv")
    with pytest.raises(HarkenError, match=folder):
        read_score_table(tmp_path / "none.csv")


def test_parquet_with_text_of_other_bytes_or_impossible_dates_is_refused(tmp_path: Path) -> None:
    latin = pa.array([b"fan", b"L\xfcfter"])
    text = pa.Array.from_buffers(pa.string(), 2, latin.buffers())
    file = tmp_path / "t.parquet"
    for column in (text, pa.MapArray.from_arrays([0, 1, 2], text, text), pa.array([2**30] * 2, pa.date32())):
        pq.write_table(pa.table({"machine": column}), file)
        with pytest.raises(HarkenError, match="cannot be read"):
            read_score_table(file)
    write_table([Clip(name, Path(f"/{name}.wav"), corpus="fan") for name in "ab"], file)
    table = pq.read_table(file)
    pq.write_table(table.set_column(table.column_names.index("corpus"), "corpus", text), file)
    with pytest.raises(HarkenError, match="UTF8"):
        read_table(file)


def test_rows_of_another_length_are_refused(tmp_path: Path) -> None:
    """As where a decimal comma makes two cells of one."""
    with pytest.raises(HarkenError, match=r"line 17 .* has 7 cells, the header 6"):
        read_score_table(written(tmp_path / "t.csv", [*ROWS[:15], (*ROWS[15], "312")]))
    (tmp_path / "open.csv").write_text('machine,section,file,a\nfan,00,"c.wav,1\nfan,00,d.wav,1\n')
    with pytest.raises(HarkenError, match="cannot be read"):
        read_score_table(tmp_path / "open.csv")
    (tmp_path / "nul.csv").write_text("machine,section,file,a\nfan,00,c.wav,1\nfan,00,d\0.wav,1\n")
    with pytest.raises(HarkenError, match="line 3 has a NUL"):
        read_score_table(tmp_path / "nul.csv")


@pytest.mark.parametrize("row", ["c1.wav;0,312", "c1.wav\t0,312", "c1;0,312", "c1.wav,0,312", "c1.wav;0.312"])
def test_semicolons_and_decimal_commas_of_score_files_are_refused(tmp_path: Path, row: str) -> None:
    (tmp_path / "anomaly_score_fan_section_00_test.csv").write_text(f"c0.wav,1\n{row}\n")
    with pytest.raises(HarkenError, match=r"line 2 .*Separate cells by commas and write decimal points"):
        evaluate(tmp_path)


def test_the_shared_tables(shared: Path) -> None:
    folder = shared / "faults" / "09-unknown-labels-are-normal"
    for name in ("right", "mixed_TRUE", "space", "words"):
        assert round(evaluate(folder / f"{name}.csv").results[0].official_score, 4) == 0.8879
    with pytest.raises(HarkenError, match=r"one_dot_00.csv: line 42, column anomaly: '1.00' is not a label"):
        evaluate(folder / "one_dot_00.csv")
    decimal = shared / "faults" / "08-decimal-comma-scores"
    assert round(evaluate(decimal / "right").results[0].official_score, 4) == 0.9569
    with pytest.raises(HarkenError, match=r"line 1 .*decimal points"):
        evaluate(decimal / "german")


#: any text that is not blank at its ends, as a name of a clip, machine or system
# Names are joined in their composed form (NFC).
TEXTS = (
    st.text(st.characters(exclude_characters="/\\\0\ufeff", exclude_categories=["Cs"]), min_size=1, max_size=12)
    .map(lambda text: normalize("NFC", text))
    .filter(lambda text: text == text.strip() and without_suffix(text + ".wav") == text)
)
SYSTEMS = TEXTS.filter(lambda text: text.lower() not in ("machine", "section", "file", "domain", "anomaly"))


@given(
    st.dictionaries(TEXTS, st.tuples(st.booleans(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1),
    TEXTS, SYSTEMS, st.sampled_from([".csv", ".csv.gz", ".parquet"]),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_reading_gives_what_was_written(
    tmp_path: Path, clips: dict[str, tuple[bool, float]], machine: str, system: str, suffix: str
) -> None:
    file = tmp_path / f"t{suffix}"
    head = ["machine", "section", "file", "anomaly", system]
    rows = [[machine, "00", f"{clip}.wav", anomaly, score] for clip, (anomaly, score) in clips.items()]
    if suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(head, map(list, zip(*rows, strict=True)), strict=True))), file)
    else:
        text = "".join(csv_line(row) + "\n" for row in [head, *rows]).encode()
        file.write_bytes(gzip.compress(text, 1) if suffix == ".csv.gz" else text)
    (table,), truth = read_score_table(file)
    assert (table.system, table.sections()) == (system, ((machine, "00"),))
    assert table.by_name((machine, "00")) == {clip: clips[clip][1] for clip in sorted(clips)}
    assert truth is not None
    assert {clip: label.anomaly for clip, label in truth.labels[machine, "00"].items()} == {
        clip: anomaly for clip, (anomaly, _) in clips.items()
    }


@given(st.floats())
def test_numbers_survive_text(value: float) -> None:
    assert read_number(repr(value)) == value or value != value


@given(st.text(max_size=8))
def test_whatever_is_read_is_ascii_and_one_meaning(text: str) -> None:
    try:
        value = read_number(text)
    except ValueError:
        pass
    else:
        assert text.isascii()
        assert "_" not in text
        assert repr(value) == repr(float(text))
    try:
        read_anomaly(text)
    except ValueError:
        return
    assert text.strip().lower() in ("0", "1", "0.0", "1.0", "true", "false", "normal", "anomaly")


@given(TEXTS)
def test_any_name_with_an_ending_is_read(name: str) -> None:
    assert read_clip(f"fan/test/{name}.wav") == read_clip(f"fan\\test\\{name}.WAV") == normalize("NFC", name)


def test_packed_tables_are_bounded(tmp_path: Path) -> None:
    """A file of 80 kB that unpacks to 80 MB."""
    with gzip.open(tmp_path / "bomb.csv.gz", "wb", 1) as handle:
        handle.write(b"machine,section,file,a\n")
        for _ in range(80):
            handle.write(b"0" * 10**6)
    with pytest.raises(HarkenError, match=r"unpacks to more than 1. MiB"):
        read_score_table(tmp_path / "bomb.csv.gz")
    pq.write_table(pa.table({"machine": ["0" * 10**5] * 400}), tmp_path / "bomb.parquet")
    with pytest.raises(HarkenError, match=r"unpacks to more than 1. MiB"):
        read_parquet(tmp_path / "bomb.parquet")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"a,b\n" * 1000)[:-9])
    with pytest.raises(HarkenError, match="cannot be read"):
        read_csv(tmp_path / "cut.csv.gz")


def test_stored_tables_are_bounded_and_checked(tmp_path: Path) -> None:
    """Clips whose attributes or parents unpack to far more than the file, and odd cells, are refused."""
    write_table([Clip("a", Path("/a.wav"), attributes={"speed": "fast"}, parents=("b",))], tmp_path / "clips.parquet")
    table = pq.read_table(tmp_path / "clips.parquet")
    long = "0" * 2**16
    bombs: dict[str, Any] = {"attributes": [[(long, long)]], "parents": [[long] * 8], "machine": [long]}
    for name, cells in bombs.items():
        column = table.schema.get_field_index(name)
        other = table.set_column(column, name, pa.array(cells, table.schema.field(name).type))
        pq.write_table(pa.concat_tables([other] * 1000), tmp_path / "bomb.parquet", compression="zstd")
        with pytest.raises(HarkenError, match="unpacks to more than"):
            read_table(tmp_path / "bomb.parquet")
    odd: dict[str, Any] = {"split": "exam", "kind": None, "domain": "both", "path": None, "frames": "1"}
    for name, cell in odd.items():
        column = table.schema.get_field_index(name)
        pq.write_table(table.set_column(column, name, pa.array([cell])), tmp_path / "odd.parquet")
        with pytest.raises(HarkenError, match=rf"{name}|not a clips table"):
            read_table(tmp_path / "odd.parquet")


def test_a_stored_table_of_scores_is_whole_or_refused(tmp_path: Path) -> None:
    write_scores(Scores.of_rows([ScoreRow("a", "a.wav", "fan", "00", "test", 1.0)], "s"), tmp_path / "scores.parquet")
    table = pq.read_table(tmp_path / "scores.parquet")
    record = json.loads(table.schema.metadata[b"harken_scores"])
    for tables in ([], [{}], None, [{**record["tables"][0], "rows": 2}], [{**record["tables"][0], "x": 1}]):
        metadata = {"harken_scores": json.dumps({**record, "tables": tables})}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "odd.parquet")
        with pytest.raises(HarkenError, match="not a table of scores"):
            read_scores(tmp_path / "odd.parquet")

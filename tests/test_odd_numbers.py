"""Numbers, rates and labels that are not what they look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from harken.core import tables
from harken.core.errors import HarkenError
from harken.core.tables import read_parquet
from harken.data.truth import read_truth
from harken.detection.rates import read_rate, two_digits
from harken.encoders.pooling import check_pooling


@pytest.mark.parametrize("text", ["1e-300", "1e-10", "0.00000000001%", "1 in 100000000000", "1/1000 years"])
def test_rates_that_nobody_can_tell_are_refused_with_the_lowest(text: str) -> None:
    with pytest.raises(HarkenError, match=r"rarer than anybody can tell. The lowest is 1(e-9|/100 years)"):
        read_rate(text)


@pytest.mark.parametrize("text", ["１%", "0.１", "1_0%", "1 in ５00", "1/２ weeks", "1\0%", "0"])
def test_rates_are_written_in_ascii(text: str) -> None:
    with pytest.raises(HarkenError, match="is not a false-alarm rate"):
        read_rate(text)


def test_no_exponents_in_sentences() -> None:
    assert [two_digits(value) for value in (0.12, 3.44, 440, 12345.6)] == ["0.12", "3.4", "440", "12,000"]


@pytest.mark.parametrize("text", ["gem:1_0", "gem:３", "gem:3\0", "rdp:1_9"])
def test_parameters_of_poolings_are_plain_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="is no number"):
        check_pooling(text)


def test_dictionary_columns_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(tables, "UNPACKED", 2**20)
    file = tmp_path / "s.parquet"
    for column in (["x" * 10_000] * 5000, pa.array(["x" * 10_000] * 5000).dictionary_encode()):
        pq.write_table(pa.table({"clip": column}), file)
        with pytest.raises(HarkenError, match="unpacks to more than 1 MiB"):
            read_parquet(file)
    columns = {"a": ["x", "y", None], "b": pa.array(["p", "q", "p"]).dictionary_encode(), "c": [1.5, None, 2.0]}
    pq.write_table(pa.table(columns), file)
    assert read_parquet(file).to_pydict() == {"a": ["x", "y", None], "b": ["p", "q", "p"], "c": [1.5, None, 2.0]}


@pytest.mark.parametrize(("folder", "label"), [("data", "10"), ("data", "1x"), ("domain", "2"), ("domain", "1x")])
def test_labels_of_the_official_truth_are_from_a_closed_set(folder: str, label: str, tmp_path: Path) -> None:
    for name in ("data", "domain"):
        (tmp_path / f"ground_truth_{name}").mkdir()
        file = tmp_path / f"ground_truth_{name}" / "ground_truth_fan_section_00_test.csv"
        file.write_text(f"section_00_0000.wav,{label if name == folder else 1}\n")
    with pytest.raises(HarkenError, match=rf"has the label '{label}'. It must be 0 \("):
        read_truth(tmp_path)

"""Parsing file names of all years."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harken.audio.suffixes import DEFAULT_SUFFIXES
from harken.core.errors import HarkenError
from harken.data.clips import clips_from_files, natural_key
from harken.data.folders import find_recordings
from harken.data.names import Name, parse_name


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("normal_id_00_00000012", Name("00", "00000012", condition="normal")),
        ("id_01_00000000", Name("01", "00000000")),
        ("section_03_0000", Name("03", "0000")),
        ("section_03_source_test_0001", Name("03", "0001", "source", "test")),
        (
            "section_00_target_train_normal_0007_car_A1_spd_28V_mic_1",
            Name("00", "0007", "target", "train", "normal", attributes="car_A1_spd_28V_mic_1"),
        ),
        ("section_00_source_train_normal_0000_noAttribute", Name("00", "0000", "source", "train", "normal")),
        # A 2024 machine lacks `test`.
        (
            "section_00_source_normal_0035_weight15_BckgF",
            Name("00", "0035", "source", None, "normal", attributes="weight15_BckgF"),
        ),
        ("section_00_machine_0001_", Name("00", "0001", split="supplemental", kind="clean")),
        ("section_00_noise_0003_a", Name("00", "0003", split="supplemental", kind="noise", attributes="a")),
    ],
)
def test_names_of_each_year(stem: str, expected: Name) -> None:
    assert parse_name(stem) == expected


@pytest.mark.parametrize(
    "stem", ["pump 3", "section_x_0001", "section_00", "section_00_source_source_0001", "id_1", ""]
)
def test_other_names_are_not_parsed(stem: str) -> None:
    assert parse_name(stem) is None


@given(st.text(max_size=60))
def test_no_name_breaks_the_parser(stem: str) -> None:
    parse_name(stem)


def test_every_official_name_is_parsed(shared: Path) -> None:
    with gzip.open(shared / "golden" / "names" / "dcase_2025_2026.csv.gz", "rt", newline="") as handle:
        names = [parse_name(Path(row["path"]).stem) for row in csv.DictReader(handle)]
    assert None not in names
    counts = Counter((name.domain, name.split, name.condition) for name in names if name is not None)
    assert counts["source", "train", "normal"] == 26_730
    assert counts["target", "train", "normal"] == 270
    assert counts["target", "test", "anomaly"] == 700
    assert len(names) == 29_800


def test_recordings_are_found_once_and_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("clip_10.wav", "clip_9.WAV", "sub/clip_1.flac", "notes.txt", ".hidden.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    recordings = find_recordings([tmp_path, tmp_path / "clip_10.wav"], DEFAULT_SUFFIXES)
    assert [path.name for path in recordings] == ["clip_9.WAV", "clip_10.wav", "clip_1.flac"]
    assert natural_key(Path("a2")) < natural_key(Path("a10"))
    with pytest.raises(HarkenError, match="no such file or folder"):
        find_recordings([tmp_path / "none"], DEFAULT_SUFFIXES)


def test_a_table_row_has_the_fields_of_the_name() -> None:
    (clip, other) = clips_from_files(
        [Path("fan/section_00_target_train_normal_0007_spd_28V.wav"), Path("my pump/0001.wav")]
    )
    assert (clip.domain, clip.condition, clip.section, clip.split) == ("target", "normal", "00", "train")
    assert clip.attributes == {"spd": "28V"}
    assert (other.domain, other.condition) == ("unknown", "unknown")

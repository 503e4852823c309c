"""The catalogue; indexing trees of every year as one clips table."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.data import catalog
from harken.data.attributes import read_attributes
from harken.data.check import check, check_year
from harken.data.clips import Clip
from harken.data.index import index
from harken.data.layout import parse_folder
from harken.data.names import attribute_pairs, parse_name, without_suffix
from harken.data.table import read_table, write_table
from harken.data.truth import read_truth
from harken.plant.simulate import simulate


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def texts(root: Path, **options: object) -> list[str]:
    return [str(finding) for finding in index(root, **options)[1]]  # type: ignore[arg-type]


# --- catalogue


def test_every_year_names_its_zips() -> None:
    assert catalog.years() == tuple(range(2020, 2027))
    names = {archive.name for number in catalog.years() for archive in catalog.year(number).archives()}
    assert {
        "dev_data_ToyConveyor.zip",
        "eval_data_train_fan.zip",
        "eval_data_fan_train.zip",
        "dev_ToyCar_r2.zip",
        "eval_data_3DPrinter_train_r2.zip",
        "eval_data_RoboticArm_train_r2.zip",
    } <= names
    for number in catalog.years():
        entry = catalog.year(number)
        for part in catalog.PARTS:
            assert entry.archives((part,))
        for machine in entry.machines:
            assert machine.test.keys() <= set(machine.sections)


def test_the_catalogue_agrees_with_the_published_lists(shared: Path) -> None:
    """Machines, sections and hidden attributes of 2025 and 2026 against 29,800 real names."""
    with gzip.open(shared / "golden" / "names" / "dcase_2025_2026.csv.gz", "rt", newline="") as handle:
        rows = [(int(row["year"]), *row["path"].split("/")) for row in csv.DictReader(handle)]
    for number in (2025, 2026):
        entry = catalog.year(number)
        for machine in {row[1] for row in rows if row[0] == number}:
            names = [parse_name(without_suffix(row[3])) for row in rows if row[:2] == (number, machine)]
            listed = next(m for m in entry.machines if m.name == machine)
            assert {name.section for name in names if name} == set(listed.sections)
            train = [name for name in names if name and name.split == "train"]
            assert sum(name.domain == "source" for name in train) == entry.train["source"]
            assert listed.hidden_attributes == all(not name.attributes for name in train)


def test_machines_not_in_a_year_are_refused() -> None:
    with pytest.raises(HarkenError, match="2025 has no machine 'pump'"):
        catalog.year(2025).archives(machines=("pump",))
    with pytest.raises(HarkenError, match="Did you mean ToyCar"):
        catalog.year(2025).archives(machines=("Toycar",))
    with pytest.raises(HarkenError, match="no catalogue of 2019"):
        catalog.year(2019)


# --- names, folders, attribute tables


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("car_B1_spd_34V_mic_1", {"car": "B1", "spd": "34V", "mic": "1"}),
        ("m-n_X", {"m-n": "X"}),
        ("volt_1.5_wt_150", {"volt": "1.5", "wt": "150"}),
        ("weight15_BckgF", {"text": "weight15_BckgF"}),
        ("A1Spd28VMic1", {"text": "A1Spd28VMic1"}),
        ("mic_imp23absu_mic_pos_A_grind_0_bkg_B", {"text": "mic_imp23absu_mic_pos_A_grind_0_bkg_B"}),
        ("drone_A_mic_2_mic_1", {"text": "drone_A_mic_2_mic_1"}),
        ("", {}),
    ],
)
def test_attributes_in_names(text: str, pairs: dict[str, str]) -> None:
    assert attribute_pairs(text) == pairs


KEYS = st.from_regex(r"[A-Za-z][A-Za-z-]{0,5}", fullmatch=True)
VALUES = st.from_regex(r"[A-Za-z0-9.-]{1,6}", fullmatch=True)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_attributes_round_trip_through_a_name(pairs: dict[str, str]) -> None:
    text = "_".join(f"{key}_{value}" for key, value in pairs.items()) or "noAttribute"
    name = parse_name(without_suffix(f"section_00_source_train_normal_0007_{text}.wav"))
    assert name is not None
    assert attribute_pairs(name.attributes) == pairs


def test_only_audio_suffixes_are_removed() -> None:
    stem = "section_00_source_train_normal_0000_volt_1.5_wt_150"
    assert without_suffix(stem) == stem
    assert without_suffix(f"{stem}.WAV") == without_suffix(f"{stem}.flac") == stem


def test_folders() -> None:
    info = parse_folder(Path("data/dcase2025t2/dev_data/raw/fan/train"))
    assert (info.machine, info.split, info.year) == ("fan", "train", 2025)
    assert parse_folder(Path("2021/gearbox/source_test")).domain == "source"
    assert parse_folder(Path("DCASE2023/eval/Vacuum/supplemental")).split == "supplemental"
    assert parse_folder(Path("recordings/pump 3")).machine == "pump 3"
    assert parse_folder(Path("backup-20251103/fan/train")).year is None


def test_attribute_tables_in_three_variants(tmp_path: Path) -> None:
    file = tmp_path / "attributes_00.csv"
    file.write_text(
        "file_name,d1p,d1v,d2p,d2v\nfan/train/section_00_source_train_normal_0000_volt_1.5_wt_0.wav,volt,1.5,wt,0\n"
    )
    assert read_attributes(file) == [
        ("section_00_source_train_normal_0000_volt_1.5_wt_0", {"volt": "1.5", "wt": "0"}, "")
    ]
    file.write_text("file_name,d1p,d1v\nsection_00_source_train_normal_0000_volt_1.5,volt,1.5\n")
    assert read_attributes(file) == [("section_00_source_train_normal_0000_volt_1.5", {"volt": "1.5"}, "")]
    file.write_text("file_name\nfan/train/section_00_source_train_normal_0000_noAttribute.wav\n")
    assert read_attributes(file) == [("section_00_source_train_normal_0000_noAttribute", {}, "")]
    file.write_text("file_name,d1p,d1v\na.wav,volt,1.5,wt,0\nb.wav,volt,1.5,,\n")
    assert [row.problem for row in read_attributes(file)] == ["has a row with more cells than columns", ""]
    file.write_text("file_name,d1p,d1v,d2p,d2v\na.wav,volt,1.5,volt,2\nb.wav,volt,1.5,volt,1.5\n")
    assert [(row.attributes, row.problem) for row in read_attributes(file)] == [
        ({"volt": "1.5"}, "gives volt two values, 1.5 and 2"), ({"volt": "1.5"}, ""),
    ]  # fmt: skip
    file.write_text("file_name,d1p,d1v,d1p,d1v\na.wav,volt,1.5,volt,2\n")
    with pytest.raises(HarkenError, match="has two columns d1p"):
        read_attributes(file)
    file.write_text("name,speed\na,1\n")
    with pytest.raises(HarkenError, match="first column is not file_name"):
        read_attributes(file)


# --- index


def test_real_trees_of_three_years_as_one(shared: Path) -> None:
    clips, _ = index(shared / "corpus")
    by_year = {year: [clip for clip in clips if clip.year == year] for year in (2020, 2021, 2023)}
    assert [len(rows) for rows in by_year.values()] == [230, 1, 29]
    assert {clip.machine for clip in by_year[2023]} == {m.name for m in catalog.year(2023).machines if m.part == "dev"}
    with (shared / "corpus" / "manifest.csv").open(newline="") as handle:
        manifest = {row["file"]: row for row in csv.DictReader(handle)}
    for clip in by_year[2020] + by_year[2023]:
        row = manifest[clip.clip_id]
        assert (clip.machine, clip.section, clip.split, clip.condition) == (
            row["machine"],
            row["section"],
            row["split"],
            row["label"],
        )
    assert {clip.domain for clip in by_year[2020]} == {"unknown"}


def test_inconsistencies_of_the_published_attribute_tables_are_reported(shared: Path) -> None:
    findings = texts(shared / "corpus" / "dcase2023")
    assert any("ToyNscale: attributes_*.csv calls spd of the name speed" in text for text in findings)
    assert any("ToyTank: attributes_*.csv lacks mic of the name" in text for text in findings)
    assert any("Vacuum: attributes_*.csv lacks spd of the name" in text for text in findings)
    assert not any("gearbox: attributes_*.csv says" in text for text in findings)


def test_a_simulated_plant_is_consistent(tmp_path: Path) -> None:
    simulate(
        tmp_path / "dcase2025t2" / "dev_data" / "raw",
        machines=["fan", "pump"],
        train_source=3,
        train_target=2,
        test_per_condition=1,
        supplemental=2,
        seconds=0.5,
        hide_attributes=["pump"],
    )
    clips, findings = index(tmp_path)
    assert not findings
    assert len(clips) == 2 * (3 + 2 + 4 + 2)
    fan = [clip for clip in clips if clip.machine == "fan"]
    assert {clip.kind for clip in fan if clip.split == "supplemental"} == {"clean"}
    assert all(clip.attributes for clip in fan if clip.split == "train")
    assert not any(clip.attributes for clip in clips if clip.machine == "pump")
    assert {(clip.year, clip.corpus) for clip in clips} == {(2025, "dcase2025")}


def test_a_key_of_two_words_is_learned_from_the_table(tmp_path: Path) -> None:
    name = "section_00_source_train_normal_0000_mic_a1_mic_pos_A_grind_0"
    touch(tmp_path, f"CoffeeGrinder/train/{name}.wav")
    table = tmp_path / "CoffeeGrinder" / "attributes_00.csv"
    table.write_text(f"file_name,d1p,d1v,d2p,d2v,d3p,d3v\nCoffeeGrinder/train/{name}.wav,mic,a1,mic_pos,A,grind,0\n")
    (clip,), findings = index(tmp_path)
    assert clip.attributes == {"mic": "a1", "mic_pos": "A", "grind": "0"}
    assert not findings
    table.write_text(f"file_name,d1p,d1v\nCoffeeGrinder/train/{name}.wav,mic,b7\n")
    (clip,), (finding,) = index(tmp_path)
    assert clip.attributes == {"text": "mic_a1_mic_pos_A_grind_0"}
    assert "says mic_b7, the name differs" in str(finding)


def test_contradictions_are_reported_and_not_resolved(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "fan/train/section_00_source_test_normal_0000_m-n_X.wav",
        "fan/train/section_00_source_train_anomaly_0001_m-n_X.wav",
        "fan/train/section_00_source_train_normal_0002_m-n_X.wav",
        "fan/train/section_00_source_train_normal_0003_m-n_X.wav",
        "fan/target_test/section_00_source_test_normal_0000_m-n_X.wav",
        "fan/train/what is this.wav",
    )
    (tmp_path / "fan" / "attributes_00.csv").write_text(
        "file_name,d1p,d1v\n"
        "fan/train/section_00_source_train_normal_0002_m-n_X.wav,m-n,Y\n"
        "fan/train/section_00_source_train_normal_0009_m-n_X.wav,m-n,X\n"
    )
    findings = "\n".join(texts(tmp_path))
    for expected in (
        "the name says test, the folder train",
        "an anomaly among the training clips",
        "the name says source, the folder target",
        "not a DCASE file name, labels unknown: what is this.wav",
        "attributes_*.csv says m-n Y, the name X",
        "lists a missing recording: section_00_source_train_normal_0009",
        "a recording is not in attributes_*.csv",
    ):
        assert expected in findings
    clips, _ = index(tmp_path)
    (clip,) = [clip for clip in clips if "0002" in clip.clip_id]
    assert clip.attributes == {"m-n": "X"}


def test_evaluation_clips_get_their_labels_from_the_truth(tmp_path: Path) -> None:
    touch(tmp_path / "dcase2025t2" / "eval_data" / "raw", *(f"ToyPet/test/section_00_{n:04d}.wav" for n in range(4)))
    for kind, column in (("data", "0101"), ("domain", "0011")):
        folder = tmp_path / "truth" / f"ground_truth_{kind}"
        folder.mkdir(parents=True)
        rows = "".join(f"section_00_{n:04d}.wav,{value}\n" for n, value in enumerate(column))
        (folder / "ground_truth_ToyPet_section_00_test.csv").write_text(rows)
    clips, _ = index(tmp_path)
    assert {clip.condition for clip in clips} == {"unknown"}
    clips, findings = index(tmp_path, truth=read_truth(tmp_path / "truth"))
    assert [clip.condition for clip in clips] == ["normal", "anomaly", "normal", "anomaly"]
    assert [clip.domain for clip in clips] == ["source", "source", "target", "target"]
    assert not findings
    (tmp_path / "dcase2025t2/eval_data/raw/ToyPet/test/section_00_0003.wav").unlink()
    assert "a clip of the ground truth is missing: section_00_0003" in "\n".join(
        texts(tmp_path, truth=read_truth(tmp_path / "truth"))
    )


def test_labelled_copies_are_not_counted_twice(tmp_path: Path) -> None:
    touch(tmp_path, "fan/test/section_00_0000.wav", "fan/test_rename/section_00_source_test_normal_0000_x_1.wav")
    clips, findings = index(tmp_path)
    assert len(clips) == 1
    assert "ignored" in str(findings[0])
    (tmp_path / "fan/test/section_00_0000.wav").unlink()
    (tmp_path / "fan/test").rmdir()
    (clip,), _ = index(tmp_path)
    assert (clip.split, clip.condition) == ("test", "normal")


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "disk/fan/train/section_00_source_train_normal_0000_noAttribute.wav")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "dcase2025").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(tmp_path / "disk")
    (clip,), _ = index(tmp_path / "tree")
    assert clip.year == 2025


def test_the_table_round_trips_through_a_file(tmp_path: Path) -> None:
    clips = [
        Clip(
            "a",
            tmp_path / "a.wav",
            "dcase2025",
            2025,
            "test",
            "fan",
            "00",
            "target",
            "anomaly",
            "machine",
            {"m-n": "X"},
        ),
        Clip("b", tmp_path / "b.wav", sample_rate=16000, channels=2, frames=160000),
    ]
    write_table(clips, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == clips
    write_table([], tmp_path / "empty.parquet")
    assert read_table(tmp_path / "empty.parquet") == []
    (tmp_path / "other.parquet").write_bytes(b"no parquet")
    with pytest.raises(HarkenError, match="is not a clips table"):
        read_table(tmp_path / "other.parquet")


def test_check_counts_and_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "dcase2025t2" / "dev_data" / "raw"
    (raw / "fan" / "train").mkdir(parents=True)
    for n in range(3):
        name = f"section_00_source_train_normal_{n:04d}_m-n_X.wav"
        sf.write(raw / "fan" / "train" / name, np.zeros(16_000 * (10 if n else 1)), 16_000)
    (raw / "fan" / "train" / "section_00_target_train_normal_0000_m-n_Y.wav").write_bytes(b"RIFF....")
    findings = "\n".join(check(tmp_path))
    assert "is cut off within its header" in findings
    assert "training clips {'source': 3, 'target': 1}, the catalogue says {'source': 990, 'target': 10}" in findings
    assert "1 clips are not 6-12 s long" in findings
    missing = check_year(tmp_path, 2025, ("dev",), ("fan", "valve"))
    assert "2025 fan: no test clips of section 00" in missing
    assert "2025 valve: no train clips of section 00" in missing
    app(args=["data", "check", str(tmp_path), "--json"], standalone_mode=False)
    assert len(json.loads(capsys.readouterr().out)["findings"]) == len(findings.splitlines())


def test_index_and_list_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "dcase2025/fan/train/section_00_source_train_normal_0000_m-n_X.wav")
    app(args=["data", "index", str(tmp_path), "--json"], standalone_mode=False)
    summary = json.loads(capsys.readouterr().out)
    assert summary["clips"] == 1
    assert summary["years"] == [2025]
    assert read_table(Path(summary["table"]))[0].machine == "fan"
    app(args=["data", "list"], standalone_mode=False)
    assert "2026" in capsys.readouterr().out
    app(args=["data", "list", "2022"], standalone_mode=False)
    assert "erratum: eval_data_list_2022.csv gives wrong labels" in capsys.readouterr().out
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(HarkenError, match="no recordings"):
        index(empty)

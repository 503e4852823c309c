"""Captions say the condition of a clip in words, and different conditions differently."""

from __future__ import annotations

import csv
import gzip
import os
from collections import defaultdict
from pathlib import Path

import pytest

from harken.data.clips import Clip
from harken.data.names import attribute_pairs, parse_name
from harken.data.spelling import spelled_attributes, spelled_machine
from harken.generation.captions import caption

SHARED = Path(os.environ.get("HARKEN_SHARED", "/nonexistent"))


@pytest.mark.parametrize(
    ("year", "machine", "name", "expected"),
    [
        (2025, "ToyCar", "section_00_source_train_normal_0000_car_A1_spd_28V_mic_1",
         "the sound of a toy car, source domain, car A1, speed 28 V, microphone 1"),
        (2022, "fan", "section_02_target_train_normal_0003_n-lv_L1",
         "the sound of a fan, section 02, target domain, noise level L1"),
        (2022, "bearing", "section_01_target_train_normal_0000_f-n_C",
         "the sound of a bearing, section 01, target domain, factory noise C"),
        (2021, "gearbox", "section_00_source_train_normal_0000_0_g_25_mm_2000_mV_none",
         "the sound of a gearbox, section 00, source domain, 0 g 25 mm 2000 mV none"),
        (2025, "CoffeeGrinder", "section_00_source_train_normal_0000_mic_imp23absu_mic_pos_A_grind_0_bkg_B",
         "the sound of a coffee grinder, source domain, microphone imp23absu, microphone position A, grind 0, "
         "background noise B"),
        (2024, "RoboticArm", "section_00_source_train_normal_0035_weight15_BckgF",
         "the sound of a robotic arm, source domain, weight 15, background noise F"),
        (2026, "ToyDrone", "section_00_source_train_normal_0035_car_B1_spd_1_mic_2_mic_1",
         "the sound of a toy drone, source domain, car B1, speed 1, microphone 2, microphone 1"),
        (2025, "bearing", "section_00_source_train_normal_0000_noAttribute", "the sound of a bearing, source domain"),
        (2020, "pump", "normal_id_04_00000000", "the sound of a pump, section 04"),
        (2025, "pump", "section_00_source_train_normal_0000_flow_3_tank_full",
         "the sound of a pump, source domain, flow 3, tank full"),
    ],
)  # fmt: skip
def test_captions_of_file_names(year: int, machine: str, name: str, expected: str) -> None:
    assert caption(_clip(year, machine, name)) == expected


def test_machine_types_are_words() -> None:
    assert spelled_machine("3DPrinter") == "3D printer"
    assert spelled_machine("ToyRCCar") == "toy RC car"
    assert spelled_machine("BlowerDustCollector") == "blower dust collector"
    assert caption(Clip("1", Path("a.wav"))) == "the sound of a machine"
    assert caption(Clip("1", Path("a.wav"), machine="AirCompressor")) == "the sound of an air compressor"


def test_all_published_names_are_spelled_out() -> None:
    """Every condition of a machine has a caption of its own, and only attributes of unknown meaning keep their name."""
    file = SHARED / "golden/names/dcase_2025_2026.csv.gz"
    if not file.is_file():
        pytest.skip("needs the lists of published file names (HARKEN_SHARED)")
    captions: dict[tuple[int, str], dict[str, set[object]]] = defaultdict(lambda: defaultdict(set))
    names = set()
    with gzip.open(file, "rt") as handle:
        for row in csv.DictReader(handle):
            year, path = int(row["year"]), Path(row["path"])
            clip = _clip(year, path.parts[0], path.stem)
            condition = (clip.domain, tuple(clip.attributes.items()))
            captions[year, clip.machine][caption(clip)].add(condition)
            names |= {name for name, _ in spelled_attributes(clip.attributes, year)}
    assert sum(len(conditions) for of_machine in captions.values() for conditions in of_machine.values()) == sum(
        len(of_machine) for of_machine in captions.values()
    )
    assert names == {
        "car", "speed", "microphone", "microphone position", "background noise", "grind", "unit", "nozzle", "power",
        "grit", "pattern of valve 1", "pattern of valve 2", "pro",
    }  # fmt: skip


def _clip(year: int, machine: str, stem: str) -> Clip:
    name = parse_name(stem)
    assert name is not None
    return Clip(
        stem, Path(f"{stem}.wav"), year=year, machine=machine, section=name.section, domain=name.domain,  # type: ignore[arg-type]
        attributes=attribute_pairs(name.attributes),
    )  # fmt: skip

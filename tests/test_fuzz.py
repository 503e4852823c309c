"""Mutated files of strangers are refused in one sentence or read: nothing else happens."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile as sf

from conftest import hum
from fuzz import mutated
from fuzz_files import KINDS, fuzz_files
from harken.monitor.detector import Detector


def check(count: int, folder: Path) -> None:
    normal = folder / "normal"
    normal.mkdir()
    for index in range(4):
        sf.write(normal / f"{index}.wav", hum(index, seconds=0.5), 16_000)
    Detector.fit(normal, workers=0).save(folder / "model.harken")
    (folder / "files").mkdir()
    outcomes = fuzz_files(count, folder / "files", folder / "model.harken", mutated)
    assert {kind: set(outcomes[kind]) - {"read", "refused"} for kind in KINDS} == {kind: set() for kind in KINDS}
    assert all(outcomes[kind]["refused"] for kind in KINDS)


@pytest.mark.filterwarnings("ignore")
def test_some_files_of_strangers(tmp_path: Path) -> None:
    check(90, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_files_of_strangers(tmp_path: Path) -> None:
    check(20_000, tmp_path)

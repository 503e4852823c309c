"""Mutated files of strangers are refused in one sentence or read: nothing else happens."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile as sf

from conftest import hum
from fuzz import mutated
from fuzz_files import KINDS, fuzz_files
from fuzz_kept import KEPT
from fuzz_versions import VERSIONS
from harken.monitor.detector import Detector


def check(count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    normal = folder / "normal"
    normal.mkdir()
    for index in range(4):
        sf.write(normal / f"{index}.wav", hum(index, seconds=0.5), 16_000)
    Detector.fit(normal, workers=0).save(folder / "model.harken")
    (folder / "files").mkdir()
    # Weights are kept in a cache.
    monkeypatch.setenv("HARKEN_CACHE", str(folder / "cache"))
    outcomes = fuzz_files(count, folder / "files", folder / "model.harken", mutated)
    kinds = (*KINDS, *KEPT, *VERSIONS)
    assert {kind: set(outcomes[kind]) - {"read", "refused"} for kind in kinds} == {kind: set() for kind in kinds}
    assert all(outcomes[kind]["refused"] for kind in kinds)


@pytest.mark.filterwarnings("ignore")
def test_some_files_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(120, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_files_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(20_000, tmp_path, monkeypatch)

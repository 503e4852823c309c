"""Data flows one way: no room imports a room to its right, and the core needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("data", "audio", "encoders", "training", "separation", "generation", "embeddings", "detection", "evaluation",
         "ensemble", "pipeline", "deploy", "cli")  # fmt: skip
SOURCE = Path(__file__).parents[1] / "src" / "harken"
BANNED = {"torchaudio", "torchvision", "torchcodec", "timm", "pickle", "joblib"}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_room_imports_a_room_to_its_right(file: Path) -> None:
    names = imported(file)
    assert not {name.split(".")[0] for name in names - {"pickle.UnpicklingError"}} & BANNED
    room = file.relative_to(SOURCE).parts[0]
    if room not in ROOMS:
        return
    for name in names:
        parts = name.split(".")
        if parts[0] == "harken" and len(parts) > 1 and parts[1] in ROOMS:
            assert ROOMS.index(parts[1]) <= ROOMS.index(room), f"{room} imports {name}"


def test_fitting_and_scoring_with_the_default_encoder_needs_no_torch(tmp_path: Path) -> None:
    """In a process where torch cannot be imported."""
    program = f"""
import sys
sys.modules["torch"] = None
sys.path.insert(0, {str(Path(__file__).parent)!r})
import soundfile as sf
import harken
from conftest import hum
for i in range(5):
    sf.write(f"{tmp_path}/{{i}}.wav", hum(i), 16000)
harken.Detector.fit("{tmp_path}", workers=0).save("{tmp_path}/m.harken")
print(harken.load("{tmp_path}/m.harken").score("{tmp_path}/0.wav").score)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) >= 0


def test_importing_the_package_is_free() -> None:
    program = "import sys, harken; print([m for m in ('numpy', 'scipy', 'pandas', 'torch') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"

"""Imports go one way between rooms and in no circle anywhere, and the core needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

#: each room may import those before it
ROOMS = ("core", "audio", "data", "plant", "weights", "encoders", "training", "separation", "generation", "embeddings",
         "detection", "evaluation", "ensemble", "monitor", "service", "page", "export", "bench", "cli")  # fmt: skip
SOURCE = Path(__file__).parents[1] / "src" / "harken"
BANNED = {"torchaudio", "torchvision", "torchcodec", "timm", "pickle", "joblib"}


def imported(file: Path) -> set[str]:
    """Every dotted name that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def module_name(file: Path) -> str:
    """`harken.audio.decode`; of an `__init__.py`, its package."""
    return ".".join(("harken", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_name(file): file for file in sorted(SOURCE.rglob("*.py"))}


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


@pytest.mark.parametrize("module", [name for name in MODULES if name != "harken"])
def test_no_room_imports_a_later_one(module: str) -> None:
    names = imported(MODULES[module])
    # The reader of pickled weights names the error, and runs none of them.
    roots = {name.split(".")[0] for name in names if not (module == "harken.weights.formats" and "pickle" in name)}
    assert not roots & BANNED
    room = room_of(module)
    assert room in ROOMS, f"{module} is in no room"
    for name in names:
        if name == "harken" or name in MODULES:
            target = room_of(name)
            assert target is not None, f"{module} imports the whole package"
            assert ROOMS.index(target) <= ROOMS.index(room), f"{module} imports {name}"


def test_no_modules_import_each_other() -> None:
    """Whole packages are left out where one of their modules is named: `from harken.plant import room`."""
    graph = {}
    for module, file in MODULES.items():
        found = imported(file) & MODULES.keys()
        finer = {name.rpartition(".")[0] for name in found if MODULES[name].name != "__init__.py"}
        graph[module] = {name for name in found if name != module and not (name in finer and module.startswith(name))}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_core_needs_no_extra(tmp_path: Path) -> None:
    """Fit, score and report in a process where nothing of the extras can be imported."""
    program = f"""
import sys
for package in ("torch", "imblearn", "pandas", "pyarrow", "requests", "onnxruntime", "optuna"):
    sys.modules[package] = None
sys.path.insert(0, {str(Path(__file__).parent)!r})
import soundfile as sf
import harken
from conftest import hum
for i in range(5):
    sf.write(f"{tmp_path}/{{i}}.wav", hum(i), 16000)
harken.Detector.fit("{tmp_path}", workers=0).save("{tmp_path}/m.harken")
from harken.cli.main import app
options = ["-m", "{tmp_path}/c.harken", "--report", "{tmp_path}/report.html"]
for words in (["fit", "{tmp_path}", "-o", "{tmp_path}/c.harken"], ["score", "{tmp_path}/0.wav", *options]):
    app(args=words, standalone_mode=False)
print(harken.load("{tmp_path}/m.harken").score("{tmp_path}/0.wav").score)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) >= 0


def test_importing_the_package_is_free() -> None:
    program = "import sys, harken; print([m for m in ('numpy', 'scipy', 'pandas', 'torch') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"

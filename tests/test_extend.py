"""docs/extend.md as a reader would follow it, and what is said to those who make a mistake."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import harken
from command_line import pasted
from conftest import hum
from harken.bench.executor import Event
from harken.bench.graph import make_units
from harken.bench.plan import make_plan
from harken.bench.recipe import load_recipe
from harken.bench.result import Run
from harken.bench.run import load_clips, run_recipe
from harken.bench.stages import Context, stage_class
from harken.bench.stages.tables import read_arrays
from harken.bench.workspace import Workspace
from harken.cli.main import app
from harken.core.errors import BundleError, HarkenError
from harken.core.plugins import code_digests, is_custom
from harken.detection import AnomalyDetector, create_detector, list_detectors
from harken.embeddings.embedder import Embedder, make_spec
from harken.embeddings.extract import extract
from harken.encoders import create_encoder, encoder_class
from harken.monitor.detector import Detector
from harken.monitor.stored import save_fitted
from harken.plant.simulate import simulate

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()
BIN = Path(sys.executable).parent
DETECTOR = """
import numpy as np
from harken.detection import AnomalyDetector

class Far(AnomalyDetector):
    def __init__(self, power=1.0):
        self.power = power
    def _fit(self, bank_ND, domains_N):
        self.mean_ = bank_ND.mean(axis=0)
    def _score(self, queries_ND):
        return np.linalg.norm(queries_ND - self.mean_, axis=1) ** self.power
"""
ENCODER = """
import numpy as np
from harken.encoders import FrameEncoder

class Level(FrameEncoder):
    name, layers, default_layer = "level", ("level",), "level"
    sample_rate, min_samples = 16_000, 1600
    def config(self):
        return {}
    def frames(self, samples_S):
        return SCALE * np.abs(samples_S[: len(samples_S) // 1600 * 1600].reshape(-1, 1600)[:, :40])
SCALE = 1.0
"""


def fences() -> list[tuple[str, str, str]]:
    """Language, content, and the page before it, of each block."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
    return [(match[1], match[2], PAGE[: match.start()]) for match in found]


def blocks() -> dict[str, str]:
    """Content of each file, which the page names last before its block."""
    return {
        re.findall(r"`([a-z]+\.(?:py|yaml))`", before)[-1]: text
        for kind, text, before in fences()
        if kind in ("python", "yaml")
    }


def commands() -> list[str]:
    return [line for kind, text, _ in fences() if not kind for line in text.splitlines() if line]


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip


def code_lines(text: str) -> int:
    """Lines with code: no blank ones, no comments, no docstrings."""
    hidden: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            hidden |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(map(str.strip, text.splitlines()), start=1)
    return sum(bool(line) and not line.startswith("#") and number not in hidden for number, line in lines)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page, after its commands."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in blocks().items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        for command in [*commands(), "python use.py"]:
            program, *words = shlex.split(command)
            # One process, where modules are imported already; others are for the test below.
            if program == "harken":
                assert app(args=[*words, *["--workers", "1"] * (words[0] == "run")], standalone_mode=False) in (0, None)
            else:
                assert program == "python"
                patch.setattr(sys, "argv", words)
                runpy.run_path(words[0], run_name="__main__")
        for name in blocks():
            sys.modules.pop(Path(name).stem, None)
    return folder


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    sizes = {"train_source": 10, "train_target": 3, "test_per_condition": 3, "supplemental": 1, "seconds": 1.0}
    simulate(root, machines=["fan"], **sizes)  # type: ignore[arg-type]
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a detector `far.py:Far` and an encoder `level.py:Level`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far.py").write_text(DETECTOR)
    (tmp_path / "level.py").write_text(ENCODER)
    return tmp_path


def run(plant: Path, **changes: object) -> tuple[Run, list[str]]:
    """The run in `work`, and the stages that were not found there."""
    started: list[str] = []

    def watch(event: Event) -> None:
        if event.state == "started":
            started.append(event.task.stage)

    recipe = load_recipe("spectral_knn", changes={f"stages.{key.replace('__', '.')}": changes[key] for key in changes})
    return run_recipe(recipe, plant, Workspace("work"), watch=watch, workers=1), started


def scores(done: Run) -> list[float]:
    return done.systems[0].scores.test.score_N.tolist()


# --- the page


def test_the_page_does_what_it_says(page: Path) -> None:
    assert set(blocks()) == {
        "residual.py", "modulation.py", "network.py", "check.py", "mine.yaml", "use.py", "parts.py", "waves.py",
        "tests.py", "parts.yaml",
    }  # fmt: skip
    assert len(commands()) == 9
    for name, text in blocks().items():
        assert not name.endswith(".py") or code_lines(text) <= (30 if name == "parts.py" else 20), name
    runs = [json.loads(file.read_text()) for file in (page / "work" / "runs").glob("*/results.json")]
    # Four of spectral_knn; mine.yaml with its own parameters, and with those of use.py.
    assert sorted(found["recipe"] for found in runs) == ["mine"] * 4 + ["parts"] + ["spectral_knn"] * 4
    assert not any(found["failed"] or found["quarantined"] for found in runs)
    tables = {file.read_bytes() for file in (page / "work" / "runs").glob("*/scores/*/anomaly_score_*.csv")}
    assert len(tables) == 8


def test_a_second_run_does_nothing_and_a_changed_file_is_run_again(page: Path) -> None:
    """In spawned processes; the other stages stay."""
    command = next(line for line in commands() if line.endswith("residual.py:Residual"))
    assert "0 stages run" in pasted(f"{command} --workers 1", page).stderr
    text = (page / "residual.py").read_text()
    (page / "residual.py").write_text(text.replace("np.linalg.norm", "2 * np.linalg.norm"))
    try:
        done = shell(f"{command} --workers 2", page)
        assert "1 stages run" in done.stderr, done.stderr
    finally:
        (page / "residual.py").write_text(text)
    assert "0 stages run" in pasted(f"{command} --workers 1", page).stderr


# --- names


def test_what_is_a_name_of_ones_own() -> None:
    for name in ("far.py:Far", "/a b/far.py:Far", "../far.py:Far", "package.module:Far", "module:Far"):
        assert is_custom(name)
    for name in ("knn", "far.py", "far.py:", ":Far", "a-b:Far", "rdp:19", "package..module:Far"):
        assert not is_custom(name)


def test_a_file_is_one_module_until_it_changes(here: Path) -> None:
    one = create_detector("far.py:Far", {"power": 2.0})
    assert type(create_detector("far.py:Far")) is type(one)
    assert type(create_detector(f"{here}/far.py:Far")) is type(one)
    changed = DETECTOR.replace("power=1.0", "power=3.0")
    before = (here / "far.py").stat()
    (here / "far.py").write_text(changed)
    os.utime(here / "far.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert create_detector("far.py:Far").get_params() == {"power": 3.0}
    assert one.get_params() == {"power": 2.0}
    assert not (here / "__pycache__").exists()
    assert "far.py:Far" not in list_detectors()


def test_an_installed_module(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "site" / "mypackage").mkdir(parents=True)
    (here / "site" / "mypackage" / "__init__.py").touch()
    (here / "far.py").rename(here / "site" / "mypackage" / "far.py")
    monkeypatch.syspath_prepend(str(here / "site"))
    found = create_detector("mypackage.far:Far")
    assert type(found).__module__ == "mypackage.far"
    assert code_digests("mypackage.far:Far").keys() == {"mypackage.far:Far"}
    assert code_digests("knn", {"members": ["knn", {"detector": "mypackage.far:Far"}, "no.such:Thing"]}).keys() == {
        "mypackage.far:Far"
    }
    with pytest.raises(HarkenError, match=r"mypackage\.near: there is no such module"):
        create_detector("mypackage.near:Far")
    with pytest.raises(HarkenError, match=r"nopackage\.far: cannot be found .*nopackage"):
        create_detector("nopackage.far:Far")
    with pytest.raises(HarkenError, match="sys: has no source file"):
        create_detector("sys:Far")


# --- runs in this process


def test_a_detector_and_an_encoder_in_a_recipe(here: Path, plant: Path) -> None:
    builtin, _ = run(plant)
    mine, started = run(plant, nearest__detector="far.py:Far")
    assert started == ["nearest"]
    assert scores(mine) != scores(builtin)
    assert mine.recipe.stages["nearest"].parameters["detector"] == "far.py:Far"
    fused, started = run(plant, nearest__detector="fusion", nearest__parameters={"members": ["knn", "far.py:Far"]})
    assert started == ["nearest"]
    heard, started = run(plant, embed__encoder="level.py:Level")
    assert started == ["embed", "nearest"]
    assert scores(heard) != scores(builtin)
    for changes in ({"nearest__detector": "far.py:Far"}, {"embed__encoder": "level.py:Level"}):
        assert run(plant, **changes)[1] == []
    # A member of a fusion that has changed, and an encoder: in the workspace and in the store of embeddings.
    (here / "far.py").write_text(DETECTOR.replace("** self.power", "** (2 * self.power)"))
    again, started = run(plant, nearest__detector="fusion", nearest__parameters={"members": ["knn", "far.py:Far"]})
    assert started == ["nearest"]
    assert scores(again) != scores(fused)
    (here / "level.py").write_text(ENCODER.replace("SCALE *", "SCALE +"))
    again, started = run(plant, embed__encoder="level.py:Level")
    assert started == ["embed", "nearest"]
    assert scores(again) != scores(heard)


def test_frames_are_of_ones_own_too(here: Path, plant: Path) -> None:
    (here / "bands.py").write_text("from harken.encoders.log_mel import LogMel\nclass Bands(LogMel): name = 'bands'\n")
    stage = stage_class("frames")
    parameters = stage.Parameters.model_validate({"encoder": "bands.py:Bands", "config": {"n_mels": 16}})
    clips = list(make_units(load_clips(plant)[0])[0].clips)
    stage.run(parameters, Context(clips, {}, here, here, here, here, seed=0, workers=0))
    assert read_arrays(here / "frames.safetensors")["frames"].shape[1] == 16
    before = stage.identity(parameters)
    (here / "bands.py").write_text((here / "bands.py").read_text() + "\n")
    assert stage.identity(parameters) != before
    assert stage.identity(stage.Parameters()) == {}


def test_the_store_of_embeddings_knows_the_code(here: Path) -> None:
    import soundfile as sf

    sf.write("clip.wav", hum(1), 16_000)
    spec = make_spec("level.py:Level", sample_rate=16_000, channels=1)
    for cached in (False, True):
        (found,) = extract(["clip.wav"], spec, store="store", workers=1)
        assert found.cached is cached
    (here / "level.py").write_text(ENCODER.replace("SCALE = 1.0", "SCALE = 2.0"))
    with pytest.raises(HarkenError, match=r"level.py:Level: is not what it was"):
        Embedder(spec)
    (again,) = extract(
        ["clip.wav"], make_spec("level.py:Level", sample_rate=16_000, channels=1), store="store", workers=1
    )
    assert found.features is not None
    assert again.features is not None
    np.testing.assert_allclose(again.features.embedding, 2 * found.features.embedding, rtol=1e-5)
    assert "code_sha256" not in make_spec("spectral", sample_rate=16_000, channels=1).model_dump()


# --- mistakes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("near.py:Far", "near.py: there is no such file"),
        ("far.py:Fat", "far.py: has no class Fat. Did you mean Far"),
        ("far.py:Nothing", "far.py: has no class Nothing. It defines: Far"),
        (
            "far.py:np",
            r"far.py: np is not a subclass of AnomalyDetector. Derive it from harken\.detection\.AnomalyDetector",
        ),
        ("level.py:Level", "level.py: Level is not a subclass of AnomalyDetector"),
        ("level.py:Lever", "level.py: has no class Lever. It defines: no AnomalyDetector"),
        ("far.py", "unknown detector 'far.py'. Write it as far.py:Class"),
        ("half.py:Half", "half.py: Half does not implement _score. Implement _score"),
        ("broken.py:Far", "broken.py: cannot be loaded: line 3: ZeroDivisionError: division by zero. Correct the file"),
        ("misspelt.py:Far", "misspelt.py: cannot be loaded: line 2: SyntaxError"),
        ("lacking.py:Far", "lacking.py: cannot be loaded: line 1: ModuleNotFoundError.*Install nosuchpackage"),
        ("ends.py:Far", "ends.py: cannot be loaded: line 2: SystemExit: 3"),
        ("picky.py:Picky", "picky.py:Picky needs the parameter 'size'"),
        ("strict.py:Strict", "strict.py: line 4: ValueError: too small"),
    ],
)
def test_mistakes_are_told(here: Path, name: str, message: str) -> None:
    base = "from harken.detection import AnomalyDetector\n"
    files = {
        "half": base + "class Half(AnomalyDetector):\n    def _fit(self, bank_ND, domains_N): ...\n",
        "broken": "def f():\n    # A comment\n    return 1 / 0\nf()\n",
        "misspelt": "x = 1\nclass Far(:\n",
        "lacking": "import nosuchpackage\n",
        "ends": "import sys\nsys.exit(3)\n",
        "picky": DETECTOR.replace("power=1.0", "size").replace("Far", "Picky"),
        "strict": base + "\nclass Strict(AnomalyDetector):\n    def __init__(self): raise ValueError('too small')\n"
        "    def _fit(self, bank_ND, domains_N): ...\n    def _score(self, queries_ND): ...\n",
    }  # fmt: skip
    for stem, text in files.items():
        (here / f"{stem}.py").write_text(text)
    with pytest.raises(HarkenError, match=message):
        create_detector(name)


def test_mistakes_of_encoders_are_told(here: Path) -> None:
    with pytest.raises(
        HarkenError, match=r"Far is not a subclass of Encoder. Derive it from harken\.encoders\.Encoder"
    ):
        encoder_class("far.py:Far")
    with pytest.raises(HarkenError, match=r"unknown encoder 'level.py'. Write it as level.py:Class"):
        encoder_class("level.py")
    with pytest.raises(HarkenError, match=r"level.py: Level: TypeError"):
        create_encoder("level.py:Level", {"bands": 3})


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("far.py", "        return bank_ND[9999]", r"far.py: line \d+: IndexError"),
        (
            "far.py",
            "        return np.full(len(bank_ND), np.nan)",
            "far.py: Far: ValueError: ",
        ),
        ("level.py", "        return samples_S / nothing", r"level.py: line \d+: NameError.*nothing"),
    ],
)
def test_what_goes_wrong_in_a_run_is_told_with_its_line(
    here: Path, plant: Path, file: str, line: str, message: str
) -> None:
    text = (here / file).read_text()
    last = [row for row in text.splitlines() if row.startswith("        return")][-1]
    (here / file).write_text(text.replace(last, line.replace("bank_ND", "queries_ND")))
    changes = {"nearest__detector": "far.py:Far"} if file == "far.py" else {"embed__encoder": "level.py:Level"}
    with pytest.raises(HarkenError, match=message):
        run(plant, **changes)


def test_weights_of_ones_own(here: Path, plant: Path) -> None:
    (here / "level.py").write_text(ENCODER.replace("sample_rate,", "needs_weights = True\n    sample_rate,"))
    with pytest.raises(HarkenError, match=r"level.py:Level needs weights. Name a file of safetensors"):
        run(plant, embed__encoder="level.py:Level")
    with pytest.raises(HarkenError, match=r"none.safetensors: there is no such file"):
        run(plant, embed__encoder="level.py:Level", embed__weights="none.safetensors")
    recipe = load_recipe("spectral_knn", changes={"stages.embed.encoder": "no.py:No"})
    missing = make_plan(recipe, plant, None)["missing"]
    assert any("no.py: there is no such file" in text for text in missing)


def test_the_command_line_says_it_and_ends_with_2(page: Path) -> None:
    command = (
        "harken run spectral_knn --data plant --workspace work --set stages.nearest.detector=residual.py:Residuals"
    )
    done = pasted(command, page)
    assert done.returncode == 2
    assert "harken: residual.py: has no class Residuals. Did you mean Residual" in done.stderr
    assert "Traceback" not in done.stderr


# --- models


def test_a_model_neither_takes_nor_runs_code(
    here: Path, make_clips: object, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_clips("normal", 6)  # type: ignore[operator]
    (here / "evil.py").write_text("open('ran', 'w').close()\n" + DETECTOR)
    for chosen in (
        {"detector": "evil.py:Far"},
        {"encoder": "evil.py:Far"},
        {"detector": "fusion", "parameters": {"members": ["knn", {"detector": "evil.py:Far"}]}},
    ):
        with pytest.raises(HarkenError, match=r"evil.py:Far cannot be part of a model.*in the bench"):
            Detector.fit(folder, workers=0, **chosen)  # type: ignore[arg-type]
    with pytest.raises(HarkenError, match="cannot be part of a model"):
        app(args=["fit", str(folder), "-o", "m.harken", "--detector", "evil.py:Far"], standalone_mode=False)
    model = Detector.fit(folder, detector="fusion", parameters={"members": ["knn", "gmm"]}, workers=0)
    honest = type(model.detector).get_params

    def forged(self: AnomalyDetector, deep: bool = True) -> dict[str, object]:
        return {**honest(self), "members": ["knn", "evil.py:Far"]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.detector), "get_params", forged)
        model.save("members.harken")
    other_spec = model.spec.model_copy(update={"encoder": "evil.py:Far"})
    save_fitted("encoder.harken", replace(model.fitted, spec=other_spec))
    for name in ("members", "encoder"):
        with pytest.raises(BundleError, match=r"names custom code, evil.py:Far, which a model never runs"):
            harken.load(f"{name}.harken")
    assert not (here / "ran").exists()

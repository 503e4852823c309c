"""Processes killed with SIGKILL at random moments: what they write is the old one, whole, or the new one, whole.

python benchmarks/kills.py [--kills 20] [--seconds 3]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
from safetensors.numpy import save

from harken.bench.workspace import Workspace
from harken.core.errors import HarkenError
from harken.data.catalog import year
from harken.monitor.detector import Detector
from harken.monitor.stored import load_fitted
from harken.monitor.versions import list_versions
from harken.plant.simulate import simulate
from harken.weights.cache import Record, keep, read_checked

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from record_server import RecordServer

SAVE = """
import sys
from harken.monitor.detector import Detector
first, path = sys.argv[1:3]
detector = Detector.load(first)
while True:
    detector.save(path)
"""
CHANGE = """
import sys
from harken.monitor.feedback.change import set_alarm
from harken.monitor.feedback.on_disk import change_model, roll_back
path, number = sys.argv[1:3]
while True:
    change_model(path, set_alarm, "1%", None, who=number)
    roll_back(path, who=number)
"""
ADD = """
import hashlib, sys
import numpy as np
from safetensors.numpy import save
from harken.weights.cache import Record, keep
turn = int(sys.argv[1])
while True:
    turn += 1
    data = save({"a": np.full(200_000, turn, np.float32)})
    sha256 = hashlib.sha256(data).hexdigest()
    keep(Record(name="mine", encoder="beats", config={}, sha256=sha256, source_file="x", source_sha256="x"), data)
"""
HARKEN = [sys.executable, "-c", "from harken.cli.main import run; run()"]


def kill(commands: list[list[object]], after: float) -> None:
    """Start processes and kill them."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([*map(str, command)], **quiet) for command in commands]  # type: ignore[call-overload]
    time.sleep(after)
    for process in processes:
        process.kill()
        process.wait()


def trial(name: str, kills: int, seconds: float, commands: list[list[object]], intact: Callable[[], object]) -> None:
    """Kill the commands that often, look after each kill, and print what was found."""
    rng = np.random.default_rng(0)
    whole = broken = 0
    for _ in range(kills):
        kill(commands, float(rng.uniform(0.1, seconds)))
        try:
            intact()
            whole += 1
        except HarkenError as error:
            broken += 1
            print(f"  {error}")
    print(f"{name}: {kills} kills, {whole} intact, {broken} broken")


def stale(folder: Path) -> list[str]:
    """Temporary files and folders below a folder."""
    return [path.name for path in folder.rglob("*") if path.name.endswith((".tmp", ".lock"))]


def zip_of(count: int) -> bytes:
    """A published zip of so many clips, each named by its content."""
    content = io.BytesIO()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(content, "w") as archive:
        for _ in range(count):
            data = rng.bytes(20_000)
            archive.writestr(f"fan/train/{hashlib.sha256(data).hexdigest()}.wav", data)
    return content.getvalue()


def whole_clips(root: Path) -> int:
    """How many clips are in their place. Raises HarkenError for one that is not whole."""
    clips = [clip for clip in root.rglob("fan/train/*.wav") if not any(part.startswith(".") for part in clip.parts)]
    for clip in clips:
        if hashlib.sha256(clip.read_bytes()).hexdigest() != clip.stem:
            raise HarkenError("is not whole", file=clip)
    return len(clips)


def main(kills: int, seconds: float, folder: Path) -> None:
    os.environ["HARKEN_CACHE"] = str(folder / "cache")
    normal = folder / "normal"
    normal.mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        sf.write(normal / f"{index}.wav", 0.1 * rng.normal(size=8_000), 16_000)
    first, model = folder / "first.harken", folder / "models" / "m.harken"
    Detector.fit(normal, workers=0).save(first)
    shutil.copytree(first, model)
    writers: list[list[object]] = [[sys.executable, "-c", SAVE, first, model]] * 2
    trial("two writers of one model", kills, seconds, writers, lambda: Detector.load(model))
    trial("fit", kills, seconds, [[*HARKEN, "fit", normal, "-o", model]], lambda: Detector.load(model))
    Detector.load(first).save(model)
    print(f"left beside and in the model after the next save: {stale(model.parent) or 'nothing'}")

    def versions() -> None:
        numbers = [version.number for version in list_versions(model)]
        assert numbers[1:] == list(range(numbers[-1] - len(numbers) + 2, numbers[-1] + 1)), numbers
        for number in numbers:
            load_fitted(model, number)

    changers: list[list[object]] = [[sys.executable, "-c", CHANGE, model, number] for number in (1, 2)]
    trial("two that change one model, all versions", kills, seconds, changers, versions)

    weights = save({"a": np.zeros(3, np.float32)})
    digest = hashlib.sha256(weights).hexdigest()
    keep(Record(name="mine", encoder="beats", config={}, sha256=digest, source_file="", source_sha256=""), weights)
    adders: list[list[object]] = [[sys.executable, "-c", ADD, turn] for turn in (0, 10_000_000)]
    trial("two writers of weights of one name", kills, seconds, adders, lambda: read_checked("mine"))

    with RecordServer() as server:
        for archive in year(2025).archives():
            if archive.machine == "fan" and archive.part == "dev":
                server.publish(archive.record, archive.name, zip_of(400))
        os.environ |= {"HARKEN_ZENODO": server.api, "NO_PROXY": "127.0.0.1"}
        download: list[object] = [
            *HARKEN,
            "data",
            "download",
            "2025",
            "--machine",
            "fan",
            "--split",
            "dev",
            "--root",
            folder / "dcase",
        ]
        trial("download", kills, 2 * seconds, [download], lambda: whole_clips(folder / "dcase"))
        done = subprocess.run([*map(str, download)], capture_output=True, text=True, check=False)
        clips = whole_clips(folder / "dcase")
        print(f"the download after the kills: exit code {done.returncode}, {clips} of 400 clips")

    plant, workspace = folder / "plant", folder / "work"
    sizes = {"train_source": 10, "train_target": 3, "test_per_condition": 3, "supplemental": 1, "seconds": 1.0}
    simulate(plant, machines=["fan"], **sizes)  # type: ignore[arg-type]
    run: list[object] = [*HARKEN, "run", "spectral_knn", "--data", plant, "--workspace", workspace]
    trial("two runs of one workspace", kills, 2 * seconds, [run, run], lambda: None)
    done = subprocess.run([*map(str, run)], capture_output=True, text=True, check=False)
    with Workspace(workspace).running():
        pass
    left = [path.name for path in (workspace / "scratch").iterdir()]
    print(f"the run after the kills: exit code {done.returncode}; scratch then holds {left or 'nothing'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp())
    try:
        main(arguments.kills, arguments.seconds, place)
    finally:
        shutil.rmtree(place)

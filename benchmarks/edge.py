"""A packaged system with and without torch: score differences, speed, start-up, memory and size of each form.

    python benchmarks/edge.py [--data ROOT] [--machine slider] [--section 00] [--encoder dasheng] [--set KEY=VALUE]

Runs `finetune --profile tiny` on the recordings, packages its system `best`, exports the model as ONNX in fp32 and with
linear layers in 8 bits, and scores all test recordings of the section with each, on one thread in a process of its own;
the ONNX models where torch cannot be imported.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from harken.bench.package import package
from harken.bench.recipe import load_recipe
from harken.bench.run import run_recipe
from harken.bench.workspace import Workspace
from harken.export.model import export_model
from harken.monitor.detector import Detector
from harken.monitor.stored import save_fitted
from shared_folder import shared_folder

PROGRAM = """
import sys, time
model, torch, begun, *files = sys.argv[1:]
if torch == "without torch":
    sys.modules["torch"] = None
import json, re
from pathlib import Path
import harken
detector = harken.load(model)
scores = [detector.score(files[0]).score]
started = time.time() - float(begun)
cpu = time.process_time()
wall = time.perf_counter()
scores += [detector.score(file).score for file in files[1:]]
print(json.dumps({
    "scores": scores, "start": started, "start_cpu": cpu,
    "wall": (time.perf_counter() - wall) / (len(files) - 1), "cpu": (time.process_time() - cpu) / (len(files) - 1),
    # Not ru_maxrss, which a process takes over from its parent.
    "memory": int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024,
}))
"""


def measured(model: Path, torch: str, files: list[Path]) -> dict[str, Any]:
    """What PROGRAM prints of a model and recordings."""
    command = [sys.executable, "-c", PROGRAM, str(model), torch, str(time.time()), *map(str, files)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    printed: dict[str, Any] = json.loads(
        subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    )
    return printed


def size_mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--machine", default="slider")
    parser.add_argument("--section", default="00")
    parser.add_argument("--encoder", default="dasheng")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    data = arguments.data or shared_folder() / "corpus" / "dcase2020"
    changes = {"encoder": arguments.encoder, "stages.train.training.steps": 20}
    changes |= {key: yaml.safe_load(value) for key, value in (change.split("=", 1) for change in arguments.set)}
    recipe = load_recipe("finetune", profile="tiny", changes=changes)
    with tempfile.TemporaryDirectory(prefix="harken-edge-") as name:
        folder = Path(name)
        # The network learns classes, of which one machine may have only one.
        machines = [path.name for path in sorted(data.iterdir()) if (path / "train").is_dir()]
        done = run_recipe(recipe, data, Workspace(folder / "w"), machines=machines, workers=1)
        (file,) = (done.folder / "scores" / "best").rglob(f"anomaly_score_{arguments.machine}*{arguments.section}*.csv")
        rows = list(csv.reader(file.read_text().splitlines()))
        of_run = [float(score) for _, score in rows]
        stems = {path.stem: path for path in (data / arguments.machine / "test").iterdir()}
        files = [stems[Path(recording).stem] for recording, _ in rows]
        forms = {"torch": folder / "torch.harken"}
        fitted = package(done.folder, "best", machine=arguments.machine, section=arguments.section, workers=0)
        save_fitted(forms["torch"], fitted, embed_weights=True)
        detector = Detector.load(forms["torch"])
        for form, int8 in (("ONNX fp32", False), ("ONNX int8", True)):
            forms[form] = folder / f"{form.replace(' ', '-')}.harken"
            export_model(detector, int8=int8).detector.save(forms[form])
        print(f"{len(files)} recordings of {detector.training.seconds_N[0]:g} s, {arguments.encoder}; one thread")
        titles = ["form", "difference", "clips/s", "CPU ms", "start s", "MiB RAM", "MiB disk"]
        print(" ".join(f"{title:>10}" for title in titles))
        for form, model in forms.items():
            result = measured(model, "with torch" if form == "torch" else "without torch", files)
            gap = max(abs(a - b) for a, b in zip(result["scores"], of_run, strict=True))
            values = [gap, 1 / result["wall"], 1000 * result["cpu"], result["start"], result["memory"], size_mib(model)]
            print(f"{form:>10} " + " ".join(f"{value:10.3g}" for value in values), flush=True)
        spread = max(of_run) - min(of_run)
        print(f"difference: largest, to the run's score files, whose scores spread over {spread:.3g}")


if __name__ == "__main__":
    main()

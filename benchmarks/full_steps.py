"""Training steps of every network of the recipes at full size, compared with the estimates of the plan.

    python benchmarks/full_steps.py [RECIPE ...] [--batch 1] [--threads 1]

Real architectures with random weights in the real training loop: three steps of `--batch` clips (two for networks with
batch normalisation) of 10 s from a simulated plant, each in a separate process. Time is CPU time of the second step;
memory is the peak of the process after it, and after saving the state at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from harken.bench import estimate
from harken.bench.devices import this_machine
from harken.bench.recipe import list_recipes, load_recipe
from harken.bench.run import load_clips
from harken.bench.stages.train import TrainStage
from harken.data.labels import label_clips
from harken.plant.simulate import simulate
from harken.training.loop import train
from harken.training.model_spec import ModelSpec
from harken.training.settings import TrainingSpec

RECIPES = ("nwpu_fusion", "thuee_system1", "unisound", "sjtu_aithu")
GIB = 2**30


def trainings(recipe: str) -> dict[str, Any]:
    """Parameters of each training stage of a recipe."""
    stages = load_recipe(recipe).stages.items()
    return {
        name: TrainStage.Parameters.model_validate(entry.parameters) for name, entry in stages if entry.use == "train"
    }


def small(training: TrainingSpec, batch: int, model: ModelSpec) -> TrainingSpec:
    """The same training with three steps."""
    cnn = any(branch.encoder == "dual_branch" for branch in model.branches)
    changes = {
        "steps": 3, "epochs": None, "batch": max(batch, 2) if cnn else batch, "accumulation": 1, "warmup": 0,
        "held_out": 0.05, "evaluate_every": 3, "choose": "last", "frozen_epochs": 0,
    }  # fmt: skip
    return TrainingSpec.model_validate({**training.model_dump(), **changes})


def make_plant(root: Path) -> None:
    simulate(
        root, machines=["fan", "valve"], train_source=12, train_target=2, test_per_condition=1, supplemental=2,
        seconds=10.0,
    )  # fmt: skip


def one(recipe: str, stage: str, data: Path, options: argparse.Namespace) -> None:
    """Train; print time and memory as a line of JSON."""
    parameters = trainings(recipe)[stage]
    model = estimate.without_weights(parameters.model)
    training = small(parameters.training, options.batch, model)
    clips = [clip for clip in load_clips(data)[0] if clip.split != "test"]
    table = label_clips(clips, load_recipe(recipe).stages["labels"].parameters["policy"])
    torch.set_num_threads(options.threads)
    ends, peaks = [time.process_time()], [0]

    def watch(step: int, steps: int, loss: float) -> None:
        ends.append(time.process_time())
        peaks.append(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    with tempfile.TemporaryDirectory() as folder:
        train(model, training, clips, table, Path(folder), progress=watch)
    print(json.dumps({"network": peaks[2], "saved": peaks[3], "seconds": ends[2] - ends[1]}))


def row(recipe: str, stage: str, data: Path, options: argparse.Namespace) -> str:
    """A line of the table."""
    command = [sys.executable, __file__, "--one", recipe, stage, str(data), "--batch", str(options.batch),
               "--threads", str(options.threads)]  # fmt: skip
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    parameters = trainings(recipe)[stage]
    training = small(parameters.training, options.batch, parameters.model)
    clips = [clip for clip in load_clips(data)[0] if clip.split != "test"]
    table = label_clips(clips, load_recipe(recipe).stages["labels"].parameters["policy"])
    counts = estimate.count_training(parameters.model, training, len(table), table.attribute_free_classes)
    network, saved = estimate.training_memory_parts(counts, training, this_machine(1))
    # CPU time does not decrease with threads.
    seconds = this_machine(options.threads).seconds(estimate.step_work(counts, training)) * options.threads
    sizes = f"{counts.parameters / 1e6:.1f} M ({counts.trainable / 1e6:.1f} M)"
    gib = [size / GIB for size in (done["network"], network, max(done["network"], done["saved"]), max(network, saved))]
    memory = " | ".join(f"{size:.1f}" for size in gib)
    return f"| `{recipe}` | {stage} | {sizes} | {training.batch} | {memory} | {done['seconds']:.1f} | {seconds:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="default: the DCASE 2025 systems")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=3, metavar=("RECIPE", "STAGE", "DATA"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        recipe, stage, data = options.one
        one(recipe, stage, Path(data), options)
        return
    print("| recipe | stage | parameters (trainable) | batch | GiB, step | plan | GiB, saving | plan | s/step | plan |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as place:
        make_plant(Path(place))
        for recipe in options.recipes or [name for name in RECIPES if name in list_recipes()]:
            for stage, parameters in trainings(recipe).items():
                plain = estimate.without_weights(parameters.model)
                # Losses, learning rates and augmentation hardly affect the cost of a step.
                key = f"{plain.model_dump_json()} {parameters.training.precision} {parameters.training.recompute}"
                if key not in seen:
                    seen.add(key)
                    print(row(recipe, stage, Path(place), options), flush=True)


if __name__ == "__main__":
    main()

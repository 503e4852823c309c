"""CPU time of a training step: Harken's loop beside a plain loop of the same modules.

    python benchmarks/training_steps.py [--encoders efficientat dual_branch] [--steps 60] [--batch 16]

Small networks on 10 s clips of 16 bits, read from files by both. The plain loop is what a script would do: all files
read by soundfile (and resampled by soxr) before the first step, batches of shuffled rows, the same network, loss and
optimiser, gradients clipped, nothing logged, evaluated or saved. One thread; CPU seconds, so that only ratios count on
a shared machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
import torch

from harken.core.threads import torch_threads
from harken.data.clips import Clip
from harken.data.labels import ClassTable, label_clips
from harken.training.loop import train
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.training.optimiser import adamw, parameter_groups
from harken.training.settings import TrainingSpec
from harken.training.step import TrainingStep

RATE, SECONDS, CLIPS = 16_000, 10, 96


def make_clips(folder: Path) -> list[Clip]:
    """Tones in noise, of four machines."""
    rng = np.random.default_rng(0)
    time_S = np.arange(RATE * SECONDS) / RATE
    clips = []
    for number in range(CLIPS):
        machine = number % 4
        file = folder / f"{number:03d}.wav"
        sound_S = 0.1 * np.sin(2 * np.pi * 110 * (machine + 1) * time_S) + 0.03 * rng.normal(size=len(time_S))
        sf.write(file, sound_S, RATE, subtype="PCM_16")
        clips.append(Clip(f"{number}", file, "test", 2025, "train", f"m{machine}", "00", "source", "normal"))
    return clips


def harken_s(model: ModelSpec, spec: TrainingSpec, clips: list[Clip], table: ClassTable, folder: Path) -> float:
    """CPU seconds of the steps after the first, all files read once more in the second epoch or kept."""
    ends: list[float] = []
    train(model, spec, clips, table, folder, save_every=10**9, progress=lambda *_: ends.append(time.process_time()))
    # The last one evaluates and saves.
    return ends[-2] - ends[0]


def plain_s(model: ModelSpec, spec: TrainingSpec, clips: list[Clip], table: ClassTable) -> float:
    """CPU seconds of as many steps, and of the share of reading that falls to them."""
    network = build_model(model)
    begun = time.process_time()
    waves = [soxr.resample(sf.read(clip.path, dtype="float32")[0], RATE, network.sample_rate) for clip in clips]
    wave_NS = torch.from_numpy(np.stack(waves))
    reading = time.process_time() - begun
    class_N = torch.tensor([int(clip.machine[1:]) for clip in clips])
    step = TrainingStep(network, spec.losses, classes=len(table))
    groups = parameter_groups(step, learning_rate=spec.learning_rate, weight_decay=spec.weight_decay, layer_decay=1.0)
    optimiser = adamw(groups)
    rng = np.random.default_rng(0)
    step.train()
    ends = []
    rows_N = np.empty(0, dtype=np.int64)
    for number in range(spec.steps or 0):
        if len(rows_N) < spec.batch:
            rows_N = rng.permutation(len(clips))
        rows_B, rows_N = rows_N[: spec.batch], rows_N[spec.batch :]
        loss = torch.stack(list(step(wave_NS[rows_B], class_N[rows_B], None, 0, str(number)).values())).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(step.parameters(), spec.clip_norm or 1e9)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        ends.append(time.process_time())
    return ends[-2] - ends[0] + reading


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["efficientat", "dual_branch"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    print(f"{'network':<14} {'plain ms/step':>14} {'harken':>10} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as place, torch_threads(1):
        sounds = make_clips(Path(place))
        labels = label_clips(sounds, "thuee")
        for encoder in options.encoders:
            head = {} if encoder == "dual_branch" else {"head": {"dims": [16]}}
            network = ModelSpec.model_validate({"branches": [{"encoder": encoder, "size": "tiny", **head}]})
            training = TrainingSpec.model_validate({
                "steps": options.steps, "batch": options.batch, "seconds": float(SECONDS), "held_out": 0.0,
                "evaluate_every": options.steps, "choose": "last", "clip_norm": 1.0,
            })  # fmt: skip
            theirs = plain_s(network, training, sounds, labels)
            ours = harken_s(network, training, sounds, labels, Path(place) / encoder)
            each = [1e3 * seconds / (options.steps - 2) for seconds in (theirs, ours)]
            print(f"{encoder:<14} {each[0]:14.1f} {each[1]:10.1f} {ours / theirs:7.2f}", flush=True)

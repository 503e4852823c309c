"""Pre-training from random weights: what it learns, against steps.

    python benchmarks/pretraining.py curve [--seeds 3] [--steps 600]     loss; 1-NN of the machine type of real clips
    python benchmarks/pretraining.py unseen [--seeds 3] [--steps 600]    second stage, and machines that it did not hear
    python benchmarks/pretraining.py step [--size full] [--clones 16]    time and memory of a step on one clip

A small EAT, clips of 2 s. Learned from without labels: a simulated plant of four machines, and normal real clips of
DCASE 2020 and 2023, MIMII and brushless motors. Asked: every fourth real clip of DCASE, which is not among them; its
nearest clip among the others by cosine of the mean-pooled last block, or of its class token, is of the same machine
type or not. `log-mel` is the mean and deviation of the network's input over time.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch

from harken.bench.run import load_clips
from harken.core.threads import torch_threads
from harken.data.clips import Clip
from harken.encoders import create_encoder
from harken.encoders.checkpoints import load
from harken.encoders.registry import encoder_class
from harken.encoders.torch_encoder import TorchEncoder
from harken.plant.simulate import simulate
from harken.training.pretrain.loop import pretrain
from harken.training.pretrain.settings import PretrainingSpec, StudentSpec
from harken.training.pretrain.step import PretrainingStep
from harken.training.recordings import Reader
from shared_folder import shared_folder

SECONDS = 2.0
#: 13 patches in time hold 2 s
SMALL: dict[str, Any] = {"width": 96, "depth": 4, "heads": 4, "target_frames": 208}


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    return f"{scale * np.mean(values):6.2f} ±{scale * np.std(values):5.2f}"


def make_plant(root: Path) -> list[Clip]:
    machines = ["fan", "valve", "pump", "gearbox"]
    sizes = {"train_source": 72, "train_target": 8, "test_per_condition": 1, "supplemental": 16, "seconds": 2.0}
    simulate(root, machines=machines, seed=0, **sizes)  # type: ignore[arg-type]
    return [clip for clip in load_clips(root)[0] if clip.split != "test"]


def real_clips(folder: Path) -> tuple[list[Clip], list[Clip], list[Clip]]:
    """Normal clips of DCASE to learn from, those that are asked, and sounds of other machines; the first 4 s of each,
    which are written to `folder`."""
    corpus = shared_folder() / "corpus"
    normal = [
        clip
        for year in ("dcase2020", "dcase2023")
        for clip in load_clips(corpus / year)[0]
        if clip.machine and clip.kind == "machine" and clip.condition == "normal"
    ]
    others = sorted((corpus / "mimii_fan_0dB").rglob("*normal*.flac")) + sorted(
        (corpus / "bldc_audio").rglob("*_normal_*.wav")
    )
    folder.mkdir()
    read = Reader(16_000, 4.0)
    cut = []
    for number, clip in enumerate([*normal, *(Clip(f"other {file.name}", file, "other") for file in others)]):
        file = folder / f"{number:03d}.wav"
        sf.write(file, read(clip), 16_000)
        cut.append(replace(clip, clip_id=f"real {number:03d}", path=file))
    asked, known = cut[: len(normal) : 4], [clip for i, clip in enumerate(cut[: len(normal)]) if i % 4]
    return known, asked, cut[len(normal) :]


def settings(seed: int, steps: int, **more: Any) -> PretrainingSpec:
    return PretrainingSpec.model_validate({
        "seed": seed, "steps": steps, "batch": 8, "clones": 4, "seconds": SECONDS, "learning_rate": 5e-4,
        "warmup": steps // 10, "decoder": {"layers": 2}, "teacher": [0.99, 0.999], "teacher_steps": steps,
        "held_out": 0.0, "evaluate_every": max(1, steps // 4), "checkpoint_every": max(1, steps // 4), **more,
    })  # fmt: skip


def accuracy(bank_ND: np.ndarray, asked_ND: np.ndarray, bank: Sequence[Clip], asked: Sequence[Clip]) -> float:
    """By cosine about the mean: class tokens are nearly parallel."""
    mean_D, deviation_D = bank_ND.mean(axis=0), bank_ND.std(axis=0) + 1e-6
    bank_ND, asked_ND = (bank_ND - mean_D) / deviation_D, (asked_ND - mean_D) / deviation_D
    bank_ND /= np.linalg.norm(bank_ND, axis=1, keepdims=True)
    nearest_N = (asked_ND @ bank_ND.T).argmax(axis=1)
    return float(np.mean([bank[n].machine == clip.machine for n, clip in zip(nearest_N, asked, strict=True)]))


def asked_accuracy(encoder: TorchEncoder, bank: Sequence[Clip], asked: Sequence[Clip]) -> tuple[float, float]:
    """With mean pooling, and of the class token."""
    reader = Reader(encoder.sample_rate, SECONDS)
    frames_NTD = np.stack([encoder.encode(reader(clip)[None]).features_BLTD[0, 0] for clip in (*bank, *asked)])
    return (
        accuracy(*np.split(frames_NTD[:, 1:].mean(axis=1), [len(bank)]), bank, asked),
        accuracy(*np.split(frames_NTD[:, 0], [len(bank)]), bank, asked),
    )


def log_mel_accuracy(bank: Sequence[Clip], asked: Sequence[Clip]) -> float:
    encoder = random_encoder(0)
    reader = Reader(encoder.sample_rate, SECONDS)
    spectrograms = [encoder.spectrogram(reader(clip)[None])[0].windows[0][:198] for clip in (*bank, *asked)]
    statistics_ND = np.stack([np.concatenate([x_FM.mean(axis=0), x_FM.std(axis=0)]) for x_FM in spectrograms])
    return accuracy(*np.split(statistics_ND, [len(bank)]), bank, asked)


def random_encoder(seed: int) -> TorchEncoder:
    encoder = create_encoder("eat", {**SMALL, "seed": seed})
    assert isinstance(encoder, TorchEncoder)
    return encoder


def pretrained_encoder(file: Path) -> TorchEncoder:
    loaded = load(file)
    encoder = create_encoder(loaded.encoder, loaded.config, loaded.weights)
    assert isinstance(encoder, TorchEncoder)
    return encoder


def curve(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        plant = make_plant(root / "plant")
        bank, asked, others = real_clips(root / "real")
        print(f"{len(plant)} simulated and {len(bank) + len(others)} real clips learned from; {len(asked)} asked")
        log_mel = log_mel_accuracy(bank, asked)
        print(f"log-mel, mean and deviation: {100 * log_mel:.1f} % of the machine types")
        rows: dict[int, list[tuple[float, ...]]] = {}
        for seed in range(options.seeds):
            begun = time.perf_counter()
            rows.setdefault(0, []).append((np.nan, np.nan, np.nan, *asked_accuracy(random_encoder(seed), bank, asked)))
            folder = root / f"seed {seed}"
            spec = settings(seed, options.steps, class_weight=options.class_weight)
            student = StudentSpec(encoder="eat", config=SMALL)
            with torch_threads(1):
                done = pretrain(student, spec, [*plant, *bank, *others], folder, save_every=10**9)
            for row in done.history:
                file = folder / f"encoder-{row.step:08d}.safetensors"
                encoder = pretrained_encoder(file if file.is_file() else done.file)
                scored = asked_accuracy(encoder, bank, asked)
                values = (row.regression, row.deviations.student, row.deviations.class_token, *scored)
                rows.setdefault(row.step, []).append(values)
            print(f"seed {seed}: {time.perf_counter() - begun:.0f} s", flush=True)
        titles = ("masked loss", "deviation", "of class token", "mean, %", "class token, %")
        print(f"{'steps':>6}", *(f"{title:>15}" for title in titles))
        for step, values in sorted(rows.items()):
            loss, student, token, mean, cls = zip(*values, strict=True)
            print(
                f"{step:6d} {spread(loss):>15} {spread(student):>15} {spread(token):>15} {spread(mean, 100):>15} "
                f"{spread(cls, 100):>15}"
            )


def unseen(options: argparse.Namespace) -> None:
    """First stage on the plant alone, second on real clips too, but none of the machine type that is asked for."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        plant = make_plant(root / "plant")
        bank, asked, others = real_clips(root / "real")
        away = {"slider", "pump"}
        heard = [clip for clip in bank if clip.machine not in away]
        new = [clip for clip in asked if clip.machine in away]
        print(
            f"second stage on {len(heard) + len(others)} real clips without {', '.join(sorted(away))}; {len(new)} asked"
        )
        rows: dict[str, list[tuple[float, ...]]] = {"random": [], "first stage": [], "second stage": []}
        for seed in range(options.seeds):
            spec = settings(seed, options.steps, class_weight=options.class_weight)
            with torch_threads(1):
                student = StudentSpec(encoder="eat", config=SMALL)
                first = pretrain(student, spec, plant, root / f"first {seed}", save_every=10**9)
                again = StudentSpec(encoder="eat", weights=str(first.file))
                second = pretrain(again, spec, [*heard, *others], root / f"second {seed}", save_every=10**9)
            rows["random"].append(asked_accuracy(random_encoder(seed), bank, new))
            for title, done in (("first stage", first), ("second stage", second)):
                rows[title].append(asked_accuracy(pretrained_encoder(done.file), bank, new))
        print(f"{'':<14} {'mean, %':>15} {'class token, %':>15}")
        for title, values in rows.items():
            mean, cls = zip(*values, strict=True)
            print(f"{title:<14} {spread(mean, 100):>15} {spread(cls, 100):>15}")


def step(options: argparse.Namespace) -> None:
    """One step with its backward pass, on random sound of 10 s; the fastest of several, in processor seconds."""
    cls: Any = encoder_class(options.encoder)
    net = cls(**cls.sizes.get(options.size, {})).module
    decoder = {"layers": 3, "kernel": 5} if options.size == "large" else {}
    spec = PretrainingSpec.model_validate({"batch": options.batch, "clones": options.clones, "decoder": decoder})
    module = PretrainingStep(net, spec)
    optimiser = torch.optim.AdamW(module.objective.learned_parameters(), lr=1e-5)
    wave_BS = 0.1 * torch.randn(options.batch, 160_000)
    times = []
    for number in range(options.steps):
        begun = time.process_time()
        torch.stack(list(module(wave_BS, 0, str(number)).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    learned = sum(parameter.numel() for parameter in module.objective.learned_parameters())
    case = f"{options.encoder} {options.size}, {options.batch} clips x {options.clones} clones"
    print(f"{case}: {min(times):.1f} CPU-s, {peak:.2f} GiB, {learned:,} learned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curve", "unseen", "step"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--class-weight", type=float, default=1.0)
    parser.add_argument("--encoder", default="eat")
    parser.add_argument("--size", default="full")
    parser.add_argument("--clones", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    {"curve": curve, "unseen": unseen, "step": step}[options.what](options)


if __name__ == "__main__":
    main()

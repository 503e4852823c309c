"""Encoders on an accelerator: forward passes, training steps, share of the measured matrix peak, agreement, decoding.

    python benchmarks/gpu.py [--device cuda] [--minutes 7.5] [--encoders beats eat:large ...]
    python benchmarks/gpu.py --device cpu --tiny                 the same on a processor, with tiny networks

Random weights, 10 s clips, bf16 by autocast, the whole network from waveform to last layer. The batch is doubled until
it no longer pays or memory ends; the best one counts. Operations are counted by torch's FlopCounterMode, which counts
matrix products, convolutions and attention; `peak` is what square bf16 products reach on this device, in this run.
`cosine`: smallest similarity of mean-pooled vectors to those of the processor in fp32. A training step is forward,
backward, clipping and AdamW of the encoder with its head and ArcFace. Decoding is what feeds it: clips from files,
checked and normalised, by one process per core. The time is divided among the encoders: what is left out is said.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from harken.data.clips import Clip
from harken.embeddings.isolated import isolated
from harken.encoders.registry import encoder_class
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.training.recordings import Reader
from harken.training.settings import TrainingSpec
from harken.training.step import TrainingStep
from throughput import record

ENCODERS = ("beats", "eat", "eat:large", "fisher", "dasheng")
SECONDS, CLASSES, LARGEST = 10, 100, 1024


class Meter:
    """Times work on a device."""

    def __init__(self, device: str, tiny: bool) -> None:
        self.device, self.tiny = torch.device(device), tiny
        self.cuda = self.device.type == "cuda"
        self.peak = self._matrix_peak()

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any], least_s: float = 0.5) -> float:
        """Of one call, after two to warm up."""
        if self.tiny:
            least_s = 0.0
        for _ in range(1 if self.tiny else 2):
            work()
        self.wait()
        begun, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - begun < least_s:
            work()
            calls += 1
            self.wait()
        return (time.perf_counter() - begun) / calls

    def memory_gib(self) -> float:
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.cuda else float("nan")

    def _matrix_peak(self) -> float:
        """Operations per second of square bf16 products, of the best of some sizes."""
        best = 0.0
        for size in (256,) if self.tiny else (4096, 8192, 16384):
            a, b = (torch.randn(size, size, device=self.device, dtype=torch.bfloat16) for _ in range(2))
            best = max(best, 2 * size**3 / self.seconds(partial(torch.matmul, a, b)))
        return best

    def best_batch(self, make: Callable[[int], Callable[[], Any]], until: float) -> tuple[int, float]:
        """Batch of most clips per second, and those, tried until `until` (monotonic time)."""
        best_batch, best_rate, batch = 0, 0.0, 2 if self.tiny else 16
        while batch <= (2 if self.tiny else LARGEST) and (not best_batch or time.monotonic() < until):
            try:
                rate = batch / self.seconds(make(batch))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                break
            if rate < 1.03 * best_rate:
                break
            best_batch, best_rate, batch = batch, rate, 2 * batch
        return best_batch, best_rate


def operations(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def waves(batch: int, rate: int, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (0.1 * torch.randn(batch, SECONDS * rate, generator=generator)).to(device)


def row(meter: Meter, name: str, until: float) -> str:
    """Forward passes and training steps of one encoder."""
    encoder_name, _, size = name.partition(":")
    size = "tiny" if meter.tiny else size if size in encoder_class(encoder_name).sizes else "full"
    branch = {"encoder": encoder_name, "size": size, "head": {"dims": [128]}}
    model = build_model(ModelSpec.model_validate({"branches": [branch]}))
    net, rate = model.encoders[0].module, model.sample_rate
    autocast = partial(torch.autocast, meter.device.type, torch.bfloat16)
    with torch.inference_mode():
        two_BS = waves(2, rate, torch.device("cpu"))
        on_processor_BD = net(two_BS)[-1].mean(dim=1)
    model.to(meter.device)

    def forward(wave_BS: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), autocast():
            last_BTD: torch.Tensor = net(wave_BS)[-1]
        return last_BTD

    both = forward(two_BS.to(meter.device)).float().mean(dim=1).cpu()
    cosine = float(torch.nn.functional.cosine_similarity(both, on_processor_BD).min())
    each = operations(lambda: forward(waves(1, rate, meter.device)))
    halfway = (time.monotonic() + until) / 2
    batch, clips_s = meter.best_batch(lambda size: partial(forward, waves(size, rate, meter.device)), halfway)

    losses = TrainingSpec.model_validate({"steps": 1}).losses
    step = TrainingStep(model, losses, classes=CLASSES).to(meter.device).train()
    optimiser = torch.optim.AdamW(step.parameters(), lr=1e-5, fused=meter.cuda)

    def training(wave_BS: torch.Tensor) -> None:
        class_B = torch.arange(len(wave_BS), device=meter.device) % CLASSES
        with autocast():
            loss = torch.stack(list(step(wave_BS, class_B, None, 0, "0").values())).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(step.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    if meter.cuda:
        torch.cuda.reset_peak_memory_stats(meter.device)
    trained = operations(lambda: training(waves(2, rate, meter.device))) / 2
    train_batch, trained_s = meter.best_batch(lambda size: partial(training, waves(size, rate, meter.device)), until)
    shares = clips_s * each / meter.peak, trained_s * trained / meter.peak
    return (
        f"{name:<12} {each / 1e9:8.1f} {batch:>7} {clips_s:8.1f} {shares[0]:7.1%} {cosine:8.5f} {train_batch:>6}"
        f" {trained_s / max(train_batch, 1):8.2f} {trained_s:9.1f} {shares[1]:7.1%} {meter.memory_gib():6.1f}"
    )


def decoded(path: Path) -> int:
    return len(Reader(16_000, None)(Clip(path.name, path)))


def decoding(clips: int) -> float:
    """Clips per second that one process per core decodes, start of the processes included."""
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"{number}.wav" for number in range(16)]
        for number, file in enumerate(files):
            record(file, number)
        begun = time.perf_counter()
        for _ in isolated(decoded, files * (clips // len(files)), workers=None, timeout=60):
            pass
        return clips // len(files) * len(files) / (time.perf_counter() - begun)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    # Before torch has threads: processes are forked.
    print(f"decoding: {decoding(32 if options.tiny else 2000):.0f} clips/s on {os.cpu_count()} cores", flush=True)
    if options.device == "cpu":
        torch.set_num_threads(1)
    measured = Meter(options.device, options.tiny)
    title = torch.cuda.get_device_name() if measured.cuda else "processor, one thread"
    print(f"{title}: peak of bf16 products {measured.peak / 1e12:.2f} TFLOP/s; torch {torch.__version__}\n")
    print(f"{'':<12} {'GFLOP':>8} {'forward':>7} {'clips/s':>8} {'peak':>7} {'cosine':>8}"
          f" {'train':>6} {'steps/s':>8} {'clips/s':>9} {'peak':>7} {'GiB':>6}")  # fmt: skip
    for place, each in enumerate(options.encoders):
        share_s = (end - time.monotonic()) / (len(options.encoders) - place)
        if share_s < 5:
            print(f"{each:<12} left out: no time is left")
            continue
        print(row(measured, each, time.monotonic() + 0.8 * share_s), flush=True)

"""What stages cost, told before they run: operations, memory and time.

Networks are counted (`counting`), not run. Of this machine, a short matrix product and a short sum are measured; of an
H200 nothing is: its time is the published peak times an assumed utilisation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from harken.bench.work import H200_RUNTIME_BYTES, Counts, Speed, Work
from harken.core.errors import HarkenError
from harken.core.extras import require_packages
from harken.training.model_spec import BranchSpec, ModelSpec
from harken.training.settings import TrainingSpec

#: interpreter, torch and what they load
RUNTIME_BYTES = 0.45 * 2**30
#: memory that a step takes of a CPU's allocator for what is alive of it, gradients aside: freed pieces between others
#: stay; fitted as above and to steps of eight clips
CPU_ALLOCATOR = 1.35
#: how often a state is in memory while it is written, beside the network and its moments
SAVE_COPIES = 3.0


def why_not() -> str | None:
    """What to install, where nothing can be estimated."""
    return None if find_spec("torch") else "estimates need torch: pip install 'harken[torch]'"


def measured_speed(threads: int) -> Speed:
    """Of this machine, in about 0.25 s; once a process and number of threads."""
    return _measured_speed(max(1, min(threads, os.cpu_count() or 1)))


@lru_cache(maxsize=8)
def _measured_speed(threads: int) -> Speed:
    import torch

    from harken.core.threads import torch_threads

    with torch_threads(threads), torch.inference_mode():
        a, b = torch.ones(768, 768), torch.ones(768, 768)
        x, y = torch.zeros(2**24), torch.ones(2**24)
        product = _fastest(lambda: torch.mm(a, b), 0.15, threads)
        total = _fastest(lambda: torch.add(x, y, out=x), 0.05, threads)
    return Speed(threads, 2 * 768**3 / product, 3 * 4 * 2**24 / total)


def _fastest(what: Callable[[], object], seconds: float, threads: int = 1) -> float:
    """Seconds of the fastest of repeated calls, for about `seconds` after one to warm up. On one thread it is the
    processor's time, which other processes do not take."""
    clock = time.process_time if threads == 1 else time.perf_counter
    what()
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = clock()
        what()
        best = min(best, clock() - begun)
    return max(float(best), 1e-9)


# ------------------------------------------------------------ architectures


def published_config(encoder: str, weights: str) -> dict[str, Any]:
    """Arguments of the architecture that named weights are of, whether they are here or not; those of the encoder's
    class where nothing is known of them."""
    from harken.encoders import checkpoints, encoder_class
    from harken.weights.cache import cached
    from harken.weights.catalog import catalog

    for record in cached():
        if record.name == weights and record.encoder == encoder:
            return dict(record.config)
    for entry in catalog():
        if entry.name == weights:
            return dict(entry.config or encoder_class(entry.encoder).sizes.get(weights, {}))
    try:
        found = checkpoints.load(weights)
    except HarkenError:
        return {}
    return dict(found.config) if found.encoder == encoder else {}


def without_weights(model: ModelSpec) -> ModelSpec:
    """The same architecture with random weights, of one seed."""
    branches = tuple(_without_weights(branch) for branch in model.branches)
    return model.model_copy(update={"branches": branches, "seed": 0})


def _without_weights(branch: BranchSpec) -> BranchSpec:
    if branch.weights is None:
        return branch
    config = {**published_config(branch.encoder, branch.weights), **branch.config}
    config.pop("seed", None)
    return branch.model_copy(update={"weights": None, "config": config})


# ------------------------------------------------------------ counting


def count_training(model: ModelSpec, training: TrainingSpec, classes: int, attribute_free: tuple[int, ...]) -> Counts:
    """See `counting.count_training`; named weights are not needed.

    Raises HarkenError for models that cannot be built, and ModuleNotFoundError without torch.
    """
    from harken.bench import counting

    if any(branch.adapter is not None for branch in model.branches):
        require_packages(("peft",), "adapters")
    return counting.count_training(without_weights(model), training, classes, attribute_free)


def count_encoder(encoder: str, config: Mapping[str, Any]) -> Counts:
    """Of a clip of 10 s through a frozen encoder. Raises HarkenError where it cannot be built without its weights."""
    from harken.bench import counting

    return counting.count_encoder(encoder, config)


# ------------------------------------------------------------ memory and time


def training_memory_parts(counts: Counts, training: TrainingSpec) -> tuple[float, float]:
    """Bytes of a process on a CPU at the peak of a step, and while the state is written."""
    fixed = 4.0 * counts.parameters + 8.0 * counts.trainable
    saving = fixed + SAVE_COPIES * 12.0 * counts.trainable
    return RUNTIME_BYTES + fixed + _step_bytes(counts, training, CPU_ALLOCATOR), RUNTIME_BYTES + saving


def training_memory(counts: Counts, training: TrainingSpec) -> tuple[float, float]:
    """Bytes at the peak, on a CPU (writing the state may be it) and of a GPU."""
    network = 4.0 * counts.parameters + 8.0 * counts.trainable + _step_bytes(counts, training, 1.0)
    return max(training_memory_parts(counts, training)), H200_RUNTIME_BYTES + network


def _step_bytes(counts: Counts, training: TrainingSpec, allocator: float) -> float:
    """Of a step beside weights and moments."""
    gradients = 4.0 * counts.trainable
    # With accumulation they are there before, and not part of what was counted.
    before = gradients if training.accumulation > 1 else 0.0
    inside = min(gradients - before, counts.live)
    return max(before + inside + allocator * (counts.live - inside), gradients)


def embedding_memory(counts: Counts) -> tuple[float, float]:
    """Bytes at the peak, on a CPU and of a GPU."""
    network = 4.0 * counts.parameters + counts.forward_live
    return RUNTIME_BYTES + network, H200_RUNTIME_BYTES + network


def step_work(counts: Counts, training: TrainingSpec) -> Work:
    """One step of the optimiser, with all its batches."""
    return counts.batch * training.accumulation + Work(0, 0, counts.trainable)


def machine_memory() -> float | None:
    """Bytes of this machine; None where it does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None


@lru_cache(maxsize=8)
def front_end_seconds(encoder: str, config: str) -> float:
    """Seconds that a clip of 10 s takes an encoder that is no network, measured on noise. config: as JSON."""
    import json

    from harken.core.threads import one_thread
    from harken.encoders import create_encoder

    built = create_encoder(encoder, json.loads(config))
    wave_BT = np.random.default_rng(0).normal(size=(1, 10 * built.sample_rate)).astype(np.float32)
    with one_thread():
        return _fastest(lambda: built.encode(wave_BT), 0.05)


def autoencoder_step_seconds(inputs: int, batch: int) -> float:
    """Seconds that a step of the baseline's network takes on one thread, measured."""
    import torch

    from harken.core.threads import torch_threads
    from harken.encoders.autoencoder import Autoencoder

    with torch_threads(1):
        network = Autoencoder(inputs)
        optimiser = torch.optim.Adam(network.parameters())
        x_BX = torch.zeros(batch, inputs)

        def step() -> None:
            torch.nn.functional.mse_loss(network(x_BX), x_BX).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()

        return _fastest(step, 0.1)

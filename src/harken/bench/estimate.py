"""What stages cost, told before they run: operations, memory and time.

Networks are built without memory (on torch's meta device) and run on tensors that have shapes only: each operation is
counted, and how many bytes are alive. Of this machine, a short matrix product and a short sum are measured; of an H200
nothing is: its time is the published peak times an assumed utilisation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from harken.core.errors import HarkenError
from harken.training.model_spec import BranchSpec, ModelSpec
from harken.training.settings import TrainingSpec

#: of the measured matrix product, what the products of a training reach; fitted to `benchmarks/full_steps.py`
CPU_UTILISATION = 0.8
#: times that what is written by other operations is moved through memory; fitted as above
CPU_TRAFFIC = 4.0
#: bytes that clipping and AdamW move a learned parameter on a CPU, where each operation passes through memory on its
#: own; fitted as above
CPU_UPDATE_BYTES = 240.0
#: interpreter, torch and what they load
RUNTIME_BYTES = 0.45 * 2**30
#: memory that a step takes of a CPU's allocator for what is alive of it, gradients aside: freed pieces between others
#: stay; fitted as above and to steps of eight clips
CPU_ALLOCATOR = 1.35
#: how often a state is in memory while it is written, beside the network and its moments
SAVE_COPIES = 3.0

#: published dense peaks of an H200 (SXM) in operations a second, by what matrix products compute in. torch takes tf32
#: for fp32 only when it is told to.
H200_FLOPS = {"fp32": 67e12, "tf32": 494e12, "bf16": 989e12, "fp16": 989e12}
H200_BANDWIDTH = 4.8e12
H200_MEMORY = 141e9
#: as above: weight, gradient and two moments read, three of them written, and their temporary copies
H200_UPDATE_BYTES = 64.0
H200_TRAFFIC = 2.0
#: assumed: no H200 was measured
H200_UTILISATION = 0.35
#: assumed: clips that are embedded pass one by one, which no GPU does faster than this
H200_CLIP_SECONDS = 0.015
H200_RUNTIME_BYTES = 1.0 * 2**30


@dataclass(frozen=True)
class Speed:
    """Of this machine on some threads: flops a second of a matrix product in fp32, bytes a second of a sum."""

    threads: int
    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """Operations of matrix products and convolutions; bytes that all others write; parameters that are updated."""

    flops: float
    bytes: float
    updates: float = 0.0

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.bytes * times, self.updates * times)

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes, self.updates + other.updates)

    def seconds(self, speed: Speed) -> float:
        """On this machine."""
        moved = CPU_TRAFFIC * self.bytes + CPU_UPDATE_BYTES * self.updates
        return self.flops / (CPU_UTILISATION * speed.flops) + moved / speed.bandwidth

    def h200_seconds(self, precision: str) -> float:
        """On one H200, as assumed."""
        half = 0.5 if precision in ("bf16", "fp16") else 1.0
        moved = H200_TRAFFIC * half * self.bytes + H200_UPDATE_BYTES * self.updates
        return self.flops / (H200_UTILISATION * H200_FLOPS[precision]) + moved / H200_BANDWIDTH


@dataclass(frozen=True)
class Counts:
    """Of a network. forward: of one clip, without gradients. batch: forward and backward of a batch. live: bytes that
    are alive at the peak of that, gradients among them unless they were there before; forward_live: of `forward`.
    parameters, trainable: their numbers, those of losses included."""

    parameters: int
    trainable: int
    forward: Work
    batch: Work
    live: float
    forward_live: float


def why_not() -> str | None:
    """What to install, where nothing can be estimated."""
    return None if find_spec("torch") else "estimates need torch: pip install 'harken[torch]'"


def measured_speed(threads: int) -> Speed:
    """Of this machine, in about 0.5 s; once a process and number of threads."""
    return _measured_speed(max(1, min(threads, os.cpu_count() or 1)))


@lru_cache(maxsize=8)
def _measured_speed(threads: int) -> Speed:
    import torch

    from harken.core.threads import torch_threads

    with torch_threads(threads), torch.inference_mode():
        a, b = torch.ones(768, 768), torch.ones(768, 768)
        x, y = torch.zeros(2**24), torch.ones(2**24)
        product = _fastest(lambda: torch.mm(a, b), 0.35, threads)
        total = _fastest(lambda: torch.add(x, y, out=x), 0.1, threads)
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


_COUNTED: dict[str, Counts] = {}
_BUILT: dict[str, Any] = {}


def count_training(model: ModelSpec, training: TrainingSpec, classes: int, attribute_free: tuple[int, ...]) -> Counts:
    """Of a training; equal networks are counted once a process. Of losses only the parameters are counted: their
    operations are few.

    Raises HarkenError for models that cannot be built, and ModuleNotFoundError without torch.
    """
    from harken.training.step import TrainingStep

    plain = without_weights(model)
    told = training.model_dump_json(include={"batch", "seconds", "recompute", "precision"})
    key = f"{plain.model_dump_json()} {told} {training.accumulation > 1}"
    try:
        if key not in _COUNTED:
            _BUILT[key] = _built(plain)
            _COUNTED[key] = _count_network(_BUILT[key], training)
        # With memory: losses are small, and look at their values.
        losses = TrainingStep(
            _BUILT[key], training.losses, classes=max(classes, 2), attribute_free=attribute_free,
            augmentation=training.augmentation,
        ).losses  # fmt: skip
    except ValueError as error:
        raise HarkenError(str(error), next_step="Correct the recipe") from error
    own = sum(parameter.numel() for parameter in losses.parameters())
    network = _COUNTED[key]
    return replace(network, parameters=network.parameters + own, trainable=network.trainable + own)


def _built(model: ModelSpec) -> Any:
    """Without memory."""
    import torch

    from harken.training.models import build_model

    with _shapes_only(), torch.device("meta"):
        return build_model(model)


def _count_network(built: Any, training: TrainingSpec) -> Counts:
    import torch

    from harken.training.recompute import recompute_blocks

    samples = max(round(training.seconds * built.sample_rate), built.min_samples)
    clips = max(training.batch, 2)
    with _fake(built):
        built.train()
        learning = [parameter for parameter in built.parameters() if parameter.requires_grad]
        if training.accumulation > 1:
            for parameter in learning:
                parameter.grad = torch.zeros_like(parameter)

        def both_ways() -> tuple[_Tally, float]:
            """Forward and backward; and what is alive between the two."""
            with _counted() as tally:
                embedding_BD = built(torch.empty(clips, samples))
                between = tally.alive
                if embedding_BD.requires_grad:
                    embedding_BD.sum().backward()
                del embedding_BD
            return tally, between

        batch, between = both_ways()
        built.eval()
        with _counted() as forward, torch.no_grad():
            built(torch.empty(1, samples))
        peak = batch.peak
        counts = built.parameter_counts()
        gradients = 0 if training.accumulation > 1 else 4 * counts.trainable
        if training.recompute:
            recompute_blocks(built)
            built.train()
            blocks = max(1, sum(len(encoder.module.blocks_in_order) for encoder in built.encoders))
            batch, kept = both_ways()
            # What was computed again is taken to be freed block by block.
            peak = kept + (between - kept) / blocks + (peak - between) + gradients
    # Batch norms want two clips; what does not grow with the batch are the gradients.
    scale = training.batch / clips
    live = gradients + (peak - gradients) * scale if peak > gradients else peak
    return Counts(counts.total, counts.trainable, forward.work(), batch.work() * scale, live, forward.peak)


def count_encoder(encoder: str, config: Mapping[str, Any], seconds: float = 10.0) -> Counts:
    """Of one clip through a frozen encoder. Raises HarkenError where it cannot be built without its weights."""
    import json

    key = f"{encoder} {json.dumps(dict(config), sort_keys=True)} {seconds}"
    if key not in _COUNTED:
        _COUNTED[key] = _count_encoder(encoder, config, seconds)
    return _COUNTED[key]


def _count_encoder(encoder: str, config: Mapping[str, Any], seconds: float) -> Counts:
    import torch

    from harken.encoders import create_encoder
    from harken.encoders.torch_encoder import TorchEncoder

    try:
        with _shapes_only(), torch.device("meta"):
            built = create_encoder(encoder, config)
    except (ValueError, TypeError) as error:
        raise HarkenError(f"{encoder} cannot be counted ({error})", next_step="Measure it") from error
    if not isinstance(built, TorchEncoder):
        raise HarkenError(f"{encoder} is no network", next_step="Measure it")
    with _fake(built.module), _counted() as forward, torch.no_grad():
        built.module(torch.empty(1, round(seconds * built.sample_rate)), (built.default_layer,))
    parameters = sum(parameter.numel() for parameter in built.module.parameters())
    return Counts(parameters, 0, forward.work(), Work(0, 0), 0, forward.peak)


@contextmanager
def _shapes_only() -> Iterator[None]:
    """Within it, networks can be built on the meta device although they ask for memory and their own generators, and
    what asks for values takes them for zero; attention is that of the CPU."""
    import torch
    from torch.nn import functional as F
    from torch.overrides import TorchFunctionMode

    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if func is torch.Tensor.__bool__:
                return False
            if func is F.scaled_dot_product_attention:
                mask = kwargs.get("attn_mask")
                if mask is None or not mask.requires_grad:
                    return attention(*args, attn_mask=mask)[0]
            if any(isinstance(one, torch.Tensor) and one.is_meta for one in args):
                kwargs.pop("generator", None)
                if func is torch.empty_like:
                    kwargs.pop("device", None)
            return func(*args, **kwargs)

    with Mode():
        yield


@contextmanager
def _fake(net: Any) -> Iterator[None]:
    """Within it, a network of the meta device computes with shapes only, as on a CPU."""
    import torch
    from torch import nn
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True), _shapes_only():
        for module in net.modules():
            for name, value in list(module._parameters.items()):
                if value is not None:
                    empty = torch.empty(value.shape, dtype=value.dtype)
                    module._parameters[name] = nn.Parameter(empty, requires_grad=value.requires_grad)
            for name, value in list(module._buffers.items()):
                if value is not None:
                    module._buffers[name] = torch.empty(value.shape, dtype=value.dtype)
        yield


class _Tally:
    def __init__(self) -> None:
        self.flops = self.written = self.alive = self.peak = 0.0

    def work(self) -> Work:
        return Work(self.flops, self.written)


@contextmanager
def _counted() -> Iterator[_Tally]:
    """Counts what is computed within it."""
    import weakref

    import torch
    from torch.utils import _pytree, flop_counter
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    tally = _Tally()
    seen: set[int] = set()

    def freed(key: int, size: int) -> None:
        seen.discard(key)
        tally.alive -= size

    class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            product = func._overloadpacket in counter.flop_registry
            for tensor in _pytree.tree_leaves(out):
                if not isinstance(tensor, torch.Tensor):
                    continue
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in seen:
                    seen.add(key)
                    weakref.finalize(storage, freed, key, size)
                    tally.alive += size
                    tally.peak = max(tally.peak, tally.alive)
                    if not product:
                        tally.written += size
                elif func._schema.is_mutable:
                    tally.written += tensor.numel() * tensor.element_size()
            return out

    def attention(q: Any, k: Any, v: Any, *more: Any, out_val: Any = None, **kwargs: Any) -> float:
        return float(flop_counter.sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]

    def attention_backward(g: Any, q: Any, k: Any, v: Any, *more: Any, out_val: Any = None, **kwargs: Any) -> float:
        return float(flop_counter.sdpa_backward_flop_count(g, q, k, v))  # type: ignore[no-untyped-call]

    def convolution_backward(
        g: Any, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *more: Any,
        out_val: Any = None, **kwargs: Any,
    ) -> float:  # fmt: skip
        # torch's own count takes no notice of groups.
        wanted = more[-1]
        return float(flop_counter.conv_flop_count(x, w, g, transposed=transposed)) * (wanted[0] + wanted[1])

    own = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
        aten.convolution_backward: convolution_backward,
    }
    counter = flop_counter.FlopCounterMode(display=False, custom_mapping=own)
    with Live(), counter:  # type: ignore[no-untyped-call]
        yield tally
    tally.flops = float(counter.get_total_flops())


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

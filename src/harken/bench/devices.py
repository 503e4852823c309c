"""Devices of plans: this machine's processor, which is measured, and published GPUs, which are not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harken.bench.work import Work
from harken.core.errors import HarkenError, did_you_mean
from harken.core.threads import blas_threads

#: precisions of which plans print alternatives, all of them settings of a training
PRECISIONS = ("fp32", "tf32", "bf16")
#: default of `harken plan`
DEFAULT = "h200"


@dataclass(frozen=True)
class Device:
    """Speed and memory of a device.

    flops: operations per second of matrix products, by precision, dense. bandwidth: bytes per second. memory: bytes;
    None if unknown. utilisation: share of `flops` that the products of a network reach. traffic: times that
    what other operations write is moved through memory. update_bytes: bytes that clipping and AdamW move per trained
    parameter. runtime_bytes: taken before any network.
    measured: whether flops and bandwidth were measured on this device. source: where the numbers come from.
    threads: of a processor.
    """

    name: str
    title: str
    flops: Mapping[str, float]
    bandwidth: float
    memory: float | None
    utilisation: float
    traffic: float
    update_bytes: float
    runtime_bytes: float
    measured: bool
    source: str
    threads: int = 1

    def seconds(self, work: Work, precision: str = "fp32") -> float:
        """Time that `work` takes. Raises KeyError for a precision that the device has no number for."""
        half = 0.5 if precision in ("bf16", "fp16") else 1.0
        moved = self.traffic * half * work.bytes + self.update_bytes * work.updates
        return work.flops / (self.utilisation * self.flops[precision]) + moved / self.bandwidth


def _gpu(name: str, title: str, flops: Mapping[str, float], bandwidth: float, memory: float, source: str) -> Device:
    """A GPU of published peaks; the other numbers are assumed.

    update_bytes: weight, gradient and two moments read, three of them written, and their temporary copies.
    """
    return Device(
        name, title, flops, bandwidth, memory, utilisation=0.35, traffic=2.0, update_bytes=64.0,
        runtime_bytes=1.0 * 2**30, measured=False, source=source,
    )  # fmt: skip


_GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("h100", "H100", {"fp32": 67e12, "tf32": 495e12, "bf16": 989e12, "fp16": 989e12}, 3.35e12, 80e9,
             "NVIDIA H100 Tensor Core GPU data sheet (SXM), dense peaks"),
        _gpu("h200", "H200", {"fp32": 67e12, "tf32": 494e12, "bf16": 989e12, "fp16": 989e12}, 4.8e12, 141e9,
             "NVIDIA H200 Tensor Core GPU data sheet (SXM), dense peaks"),
    )
}  # fmt: skip


def list_devices() -> tuple[str, ...]:
    """Names of the devices that `device` knows."""
    return tuple(sorted(_GPUS))


def device(name: str) -> Device:
    """A published GPU by name. Raises HarkenError, naming the nearest, for an unknown one."""
    if name not in _GPUS:
        hint = did_you_mean(name, list_devices())
        raise HarkenError(f"there is no device {name!r}", next_step=hint)
    return _GPUS[name]


def this_machine(threads: int) -> Device:
    """The processor on some threads, measured in about 0.25 s; once per process and number of threads.

    utilisation, traffic and update_bytes are fitted to `benchmarks/full_steps.py`: each operation of an update passes
    through memory by itself, and products are about a tenth slower in torch than in NumPy, by which they are measured.
    Half precisions are not measured, and taken to be no faster than fp32.
    """
    return _measured(max(1, min(threads, os.cpu_count() or 1)))


@lru_cache(maxsize=8)
def _measured(threads: int) -> Device:
    with blas_threads(threads), ThreadPoolExecutor(threads) as pool:
        a, b = np.ones((768, 768), np.float32), np.ones((768, 768), np.float32)
        x, y = np.zeros((threads, 2**24 // threads), np.float32), np.ones(2**24 // threads, np.float32)

        def add(row: int) -> None:
            np.add(x[row], y, out=x[row])

        product = fastest(lambda: a @ b, 0.15, threads)
        total = fastest(lambda: add(0) if threads == 1 else list(pool.map(add, range(threads))), 0.05, threads)
    return processor(2 * 768**3 / product, 3 * 4 * x.size / total, threads)


def processor(flops: float, bandwidth: float, threads: int = 1) -> Device:
    """A CPU of these operations (fp32) and bytes per second."""
    return Device(
        "cpu", "this machine", {"fp32": flops, "tf32": flops}, bandwidth, machine_memory(), utilisation=0.73,
        traffic=4.0, update_bytes=240.0, runtime_bytes=0.45 * 2**30, measured=True,
        source="a product of 768 x 768 and a sum of 2^24 numbers", threads=threads,
    )  # fmt: skip


def machine_memory() -> float | None:
    """Bytes of memory of this machine; None if the system does not report it."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None


def fastest(function: Callable[[], object], seconds: float, threads: int = 1) -> float:
    """Seconds of the fastest of repeated calls, for about `seconds` after a first one. On one thread it is the
    processor's time, which other processes do not affect."""
    clock = time.process_time if threads == 1 else time.perf_counter
    function()
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = clock()
        function()
        best = min(best, clock() - begun)
    return max(float(best), 1e-9)

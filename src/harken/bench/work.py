"""What there is to compute, and how long devices take for it."""

from __future__ import annotations

from dataclasses import dataclass

#: of the measured matrix product, what the products of a training reach; fitted to `benchmarks/full_steps.py`
CPU_UTILISATION = 0.8
#: times that what is written by other operations is moved through memory; fitted as above
CPU_TRAFFIC = 4.0
#: bytes that clipping and AdamW move a learned parameter on a CPU, where each operation passes through memory on its
#: own; fitted as above
CPU_UPDATE_BYTES = 240.0
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

"""Amounts of computation; `devices` turns them into seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Operations of matrix products and convolutions; bytes that all others write; parameters that are updated."""

    flops: float
    bytes: float
    updates: float = 0.0

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.bytes * times, self.updates * times)

    def __add__(self, work: Work) -> Work:
        return Work(self.flops + work.flops, self.bytes + work.bytes, self.updates + work.updates)


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

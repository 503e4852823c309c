"""Blocks of sound to windows of one length, exact to the sample; no window spans a gap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np

from harken.service.records import Block, Window


class Windower:
    """Cuts the sound of a source into windows.

    seconds: their length. hop_s: from the beginning of one to that of the next (default: the length, gapless); longer
    ones leave sound out. number: of the first window. name: of the machine, see `records.Resume`.
    A window begins at the first sample after a gap, a change of rate or channels; what is left before it is too short
    to be a window, and is dropped.
    """

    def __init__(self, seconds: float, hop_s: float | None = None, *, number: int = 0, name: str = "") -> None:
        if seconds <= 0 or (hop_s is not None and hop_s <= 0):
            raise ValueError("windows and hops must be longer than nothing")
        self.number = number
        #: seconds of sound that were too short for a window
        self.dropped_s = 0.0
        self._seconds, self._hop_s, self._name = seconds, seconds if hop_s is None else hop_s, name
        self._blocks: deque[Block] = deque()
        #: position of the next window
        self._next = 0
        #: files of which nothing is needed any more, since the last window
        self._passed: dict[str, str] = {}

    @property
    def end_position(self) -> int:
        """Position behind the last sample that was pushed."""
        return self._blocks[-1].end_position if self._blocks else self._next

    def push(self, block: Block) -> Iterator[Window]:
        """Windows that end within this block. Raises ValueError for one that lies before the end of the last."""
        last = self._blocks[-1] if self._blocks else None
        if last is not None and block.position < last.end_position:
            raise ValueError("blocks must not overlap")
        if last is None or not _continues(last, block):
            self._drop()
            self._next = block.position
        self._blocks.append(block)
        length = max(1, round(self._seconds * block.sample_rate))
        hop = max(1, round(self._hop_s * block.sample_rate))
        while self._next + length <= block.end_position:
            first = self._first()
            samples_CS = self._cut(self._next, self._next + length)
            start = first.start + timedelta(seconds=(self._next - first.position) / first.sample_rate)
            position, self._next = self._next, self._next + hop
            yield Window(samples_CS, block.sample_rate, self.number, position, start, first.origin, self._resume())
            self.number += 1
        self._first()

    def _first(self) -> Block:
        """The block with the first sample of the next window, or the last one."""
        while len(self._blocks) > 1 and self._blocks[0].end_position <= self._next:
            passed = self._blocks.popleft()
            if passed.origin and passed.origin != self._blocks[0].origin:
                self._passed[passed.origin] = passed.origin_state
        return self._blocks[0]

    def _cut(self, start: int, stop: int) -> Any:
        pieces = []
        for block in self._blocks:
            if block.position < stop and block.end_position > start:
                pieces.append(block.samples_CS[:, max(0, start - block.position) : stop - block.position])
        return pieces[0].copy() if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    def _resume(self) -> Mapping[str, Mapping[str, Any]]:
        """Where to take the source up behind the window that was just cut."""
        first = self._first()
        state: dict[str, dict[str, Any]] = {
            f"{self._name}/{origin}": {"state": origin_state, "done": True}
            for origin, origin_state in self._passed.items()
        }
        self._passed.clear()
        if first.origin:
            place = first.origin_position + self._next - first.position
            state[f"{self._name}/{first.origin}"] = {"state": first.origin_state, "next": place}
        return {**state, self._name: {"number": self.number + 1, "position": self._next}}

    def _drop(self) -> None:
        if not self._blocks:
            return
        last = self._blocks[-1]
        self.dropped_s += max(0, last.end_position - self._next) / last.sample_rate
        for block in self._blocks:
            if block.origin:
                self._passed[block.origin] = block.origin_state
        self._blocks.clear()


def _continues(last: Block, block: Block) -> bool:
    return (
        block.position == last.end_position
        and block.sample_rate == last.sample_rate
        and len(block.samples_CS) == len(last.samples_CS)
    )

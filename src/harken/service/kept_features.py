"""What is kept of a judged window without its sound, so that a model may learn from it later."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from harken.embeddings.embedder import ClipFeatures, EmbeddingSpec
from harken.embeddings.packed import packed, unpacked
from harken.monitor.verdict import Kind
from harken.service.records import HeardWindow

log = logging.getLogger(__name__)

#: features hardly shrink: the fastest level is within a hundredth of the best one
_LEVEL = 1
#: bytes of features beyond which they are damaged
_MOST_BYTES = 64 * 2**20


def features_name(spec: EmbeddingSpec) -> str:
    """Names features that can be compared with each other: those of one encoder, its weights and its settings."""
    return spec.fingerprint()[:24]


@dataclass(frozen=True)
class WindowFeatures:
    """Features of a window.

    number: of the window. spec: see `features_name`. sha256: of its sound. kind, score: as it was judged. alarm: id of
    the alarm that was on, empty for none. notable: kept longer than others. data: see `features`.
    """

    machine: str
    number: int
    start: datetime
    end: datetime
    spec: str
    sha256: str
    kind: Kind
    score: float
    alarm: str = ""
    notable: bool = False
    data: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, heard: HeardWindow, alarm: str = "", *, notable: bool = False) -> Self | None:
        """Of a window that was heard; None for one that says nothing of the machine."""
        window, verdict = heard.window, heard.verdict
        if verdict.features is None or verdict.score is None or verdict.kind == "not judged" or not heard.spec:
            return None
        data = zlib.compress(packed(verdict.features), _LEVEL)
        return cls(
            heard.machine, window.number, window.start, window.end, heard.spec, verdict.features.sha256, verdict.kind,
            verdict.score, alarm, notable or bool(alarm) or verdict.kind != "normal", data,
        )  # fmt: skip

    def features(self) -> ClipFeatures:
        """As they were heard. Raises ValueError where they are damaged."""
        unpacking = zlib.decompressobj()
        try:
            data = unpacking.decompress(self.data, _MOST_BYTES)
        except zlib.error as error:
            raise ValueError(f"no features ({error})") from None
        return unpacked(data, self.sha256)


def readable(windows: Iterable[WindowFeatures]) -> list[tuple[WindowFeatures, ClipFeatures]]:
    """Windows with their features, but for those of which these are damaged, or were kept by a later version of Harken.

    How many are left out is logged.
    """
    pairs: list[tuple[WindowFeatures, ClipFeatures]] = []
    left_out: list[str] = []
    for window in windows:
        try:
            pairs.append((window, window.features()))
        except ValueError as error:
            left_out.append(f"machine {window.machine}: {window.start:%Y-%m-%d %H:%M:%S}: {error}")
    if left_out:
        log.warning("features of %d windows cannot be read, and are left out; %s", len(left_out), left_out[0])
    return pairs

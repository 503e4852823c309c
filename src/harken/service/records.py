"""What the parts of the running monitor hand to each other: sound, windows, verdicts of windows, messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.monitor.verdict import Verdict

Float32 = NDArray[np.float32]


#: what a store keeps so that the source of a machine can be taken up again: by key, which is the machine's name, or
#: `<machine>/<file>`; JSON-able values, of which an empty one forgets the key
Resume = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive sound of a source.

    samples_CS: (channels, samples) within [-1, 1]. sample_rate: Hz. position: number of its first sample since the
    source began, never falling; sound is missing where a block does not begin at the end of the one before.
    start: wall-clock time of the first sample, UTC; it may jump as clocks do. origin: file that it was read from, empty
    for live sound; origin_position: number of its first sample in that file; origin_state: what tells the file from a
    later one of the same name.
    """

    samples_CS: Float32
    sample_rate: int
    position: int
    start: datetime
    origin: str = ""
    origin_position: int = 0
    origin_state: str = ""

    @property
    def end_position(self) -> int:
        """Position of the sample that would follow."""
        return self.position + self.samples_CS.shape[1]


@dataclass(frozen=True, eq=False)
class Recording:
    """A file that is a recording of its own, and is judged as `harken score` judges it.

    position: see `Block`. frames: its length, 0 where it cannot be read; error is then why. start: wall-clock time of
    its first sample, UTC. origin: its name in the source. origin_state: see `Block`. judged_s: seconds of it, from its
    beginning, whose verdicts are stored already.
    """

    file: Path
    position: int
    frames: int
    start: datetime
    origin: str
    origin_state: str = ""
    judged_s: float = 0.0
    error: HarkenError | None = None

    @property
    def end_position(self) -> int:
        """Position of the sample that would follow."""
        return self.position + self.frames


@dataclass(frozen=True, eq=False)
class Window:
    """Sound that is judged at once; it spans no gap.

    number: counts the windows of a machine; those that are lost are counted too. resume: what the store keeps with its
    verdict. Other fields: `Block`; those of the origin are of its first sample. Without samples where a file cannot be
    read.
    """

    samples_CS: Float32
    sample_rate: int
    number: int
    position: int
    start: datetime
    origin: str = ""
    resume: Resume = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.samples_CS.shape[1] / self.sample_rate

    @property
    def end(self) -> datetime:
        """Wall-clock time of its end, UTC."""
        return self.start + timedelta(seconds=self.seconds)


@dataclass(frozen=True, eq=False)
class HeardWindow:
    """A window of one machine with its verdict. model: digest of the model that judged it. spec: name of its features,
    see `kept_features`; empty for those that are not kept."""

    machine: str
    window: Window
    verdict: Verdict
    model: str
    spec: str = ""


@dataclass(frozen=True)
class Message:
    """Something that sinks tell people and systems; kept in the store until every sink has it.

    id: unique, the same at every delivery. number: rises by one per message of the monitor; 0 until it is recorded.
    kind: `alarm`, `sensor`, `source`, `service`. machine: empty for messages of the service. payload: JSON-able.
    """

    id: str
    number: int
    kind: str
    machine: str
    time: datetime
    payload: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON-able fields, times in ISO 8601."""
        return {
            "id": self.id,
            "number": self.number,
            "kind": self.kind,
            "machine": self.machine,
            "time": self.time.astimezone(UTC).isoformat(),
            **self.payload,
        }

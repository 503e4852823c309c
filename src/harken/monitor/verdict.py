"""What is said of a recording, and of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.embeddings.sketch import sketch_db
from harken.monitor.explain import Explanation

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is said of one recording.

    score: higher = more anomalous. p_value: probability that a normal recording scores as high.
    extrapolated: the p-value is finer than the training recordings support.
    why, heatmap: see `Explanation`. sketch_BC: coarse spectrogram, see `sketch_db`.
    error: set, and all else None, where the recording could not be scored.
    """

    path: Path
    score: float | None = None
    p_value: float | None = None
    is_anomaly: bool | None = None
    extrapolated: bool | None = None
    explanation: Explanation | None = field(default=None, repr=False)
    sketch_BC: NDArray[np.uint8] | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()
    seconds: float | None = None
    error: HarkenError | None = None

    @property
    def why(self) -> str | None:
        return None if self.explanation is None else self.explanation.sentence

    @property
    def heatmap(self) -> Float32 | None:
        return None if self.explanation is None else self.explanation.heatmap_BC

    @property
    def sketch_db(self) -> Float32 | None:
        """The recording's own spectrogram, (bands, columns) in dB, on the grid of `heatmap`."""
        return None if self.sketch_BC is None else sketch_db(self.sketch_BC)

    def as_json(self) -> dict[str, Any]:
        """JSON-able fields, without the heat map."""
        if self.error is not None:
            return {"file": str(self.path), "error": self.error.cause, "next_step": self.error.next_step}
        found = self.explanation
        region = None
        if found is not None and found.low_hz is not None:
            region = {
                "low_hz": round(found.low_hz, 1),
                "high_hz": round(found.high_hz or 0.0, 1),
                "start_s": round(found.start_s or 0.0, 2),
                "end_s": round(found.end_s or 0.0, 2),
                "change_db": round(found.change_db or 0.0, 1),
            }
        return {
            "file": str(self.path),
            "score": self.score,
            "p_value": self.p_value,
            "is_anomaly": self.is_anomaly,
            "extrapolated": self.extrapolated,
            "why": self.why,
            "region": region,
            "nearest": None if found is None else found.nearest,
            "warnings": list(self.warnings),
        }


def shifted(p_values: Sequence[float]) -> str | None:
    """A sentence for someone whose machine has changed its state rather than its health; None otherwise.

    When half of eight or more recordings have p <= 0.1, it is not this or that recording that is odd: all
    sound different together. Normal recordings give this in less than 1 % of cases.
    """
    if len(p_values) < 8 or 2 * sum(p <= 0.1 for p in p_values) < len(p_values):
        return None
    return (
        f"most of these {len(p_values)} recordings sound different from the normal ones together: the machine's "
        "state, its surroundings or the microphone has changed, or it has a lasting fault. If it is healthy, "
        "add normal recordings of the new state and fit again; until then the promise about false alarms does not hold"
    )

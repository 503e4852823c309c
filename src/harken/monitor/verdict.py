"""What is said of a recording."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harken.audio.segments import segment_name
from harken.core.errors import HarkenError
from harken.embeddings.embedder import ClipFeatures
from harken.embeddings.sketch import sketch_db
from harken.monitor.explain import Explanation
from harken.monitor.view_scores import ViewScores

Float32 = NDArray[np.float32]

#: `normal`: as normal recordings. `suspect`: scores above every normal recording, no alarm. `alarm`: above the
#: threshold. `not judged`: says nothing about the machine (off, sensor, unreadable)
Kind = Literal["normal", "suspect", "alarm", "not judged"]
#: `sound`: the recording as a whole. What the whole hides: `event`, short sounds in it, and `tone`, steady ones
View = Literal["sound", "event", "tone"]

#: why sound says nothing about the machine: it is `off`; the gain or the place of the microphone has changed (`level`);
#: `sensor` or recorder are at fault; it is too `short`
Unheard = Literal["off", "level", "sensor", "short"]

#: which of several verdicts counts
GRAVITY: dict[Kind, int] = {"not judged": 0, "normal": 1, "suspect": 2, "alarm": 3}
#: said of a recording that is scored by a model of its own sound
LEARNED = "is one of the recordings that the model learned from: the score is its held-out one"


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is said of one recording, or of a segment of a long one.

    score: higher = more anomalous; of the sound as a whole. event_score, tone_score: of short events in it, and of
    tones (dB); None where the model has no view of them. p_value: probability that a normal recording scores as high,
    in any. extrapolated: the p-value is finer than the training recordings support. decided_by: which score makes it
    what it is. higher_than, of: that one is higher than so many of the held-out scores of normal recordings. why,
    heatmap: see `Explanation`. sketch_BC: coarse spectrogram, see `sketch_db`. features: what was judged, from which a
    model may learn later. not_judged: why the recording says nothing about the machine, of the kind `unheard`; error:
    why it could not be read or scored. Where the recording could not be scored, all numbers are None. concerns: those
    of the warnings that are on sensor and recorder, and not harmless. warnings: defects of the recording, and what the
    numbers do not account for. sha256: of the file, or of the segment. start_s, end_s: of the segment of the file, in
    seconds, that is judged, or is the worst of a recording of `seconds`; None where that is the whole. Times of the
    explanation are those in the file. segment_scores: of all judged segments of a recording that is judged by its
    worst one.
    """

    path: Path
    kind: Kind = "not judged"
    score: float | None = None
    event_score: float | None = None
    tone_score: float | None = None
    p_value: float | None = None
    extrapolated: bool | None = None
    decided_by: View = "sound"
    higher_than: int | None = None
    of: int | None = None
    explanation: Explanation | None = field(default=None, repr=False)
    sketch_BC: NDArray[np.uint8] | None = field(default=None, repr=False)
    features: ClipFeatures | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()
    seconds: float | None = None
    sha256: str | None = field(default=None, repr=False)
    not_judged: str | None = None
    error: HarkenError | None = None
    start_s: float | None = None
    end_s: float | None = None
    segment_scores: tuple[float, ...] = ()
    unheard: Unheard | None = None
    concerns: tuple[str, ...] = ()

    @property
    def scores(self) -> ViewScores | None:
        """By view; None where the recording could not be scored."""
        return None if self.score is None else ViewScores(self.score, self.event_score, self.tone_score)

    @property
    def name(self) -> str:
        """The path, with the times of the segment if it is one."""
        if self.start_s is None or self.end_s is None:
            return str(self.path)
        return segment_name(str(self.path), self.start_s, self.end_s)

    @property
    def is_anomaly(self) -> bool | None:
        """Whether it is an alarm; None where it is not judged."""
        return None if self.kind == "not judged" else self.kind == "alarm"

    @property
    def rank(self) -> str:
        """How the score stands among those of normal recordings: `above all 108`, `above 41 of 108`; `event above ...`,
        `tone above ...` where another view than that of the sound as a whole decides."""
        if self.higher_than is None:
            return ""
        view = "" if self.decided_by == "sound" else f"{self.decided_by} "
        if self.higher_than == self.of:
            # The worst of many segments may be above all, and yet be as normal recordings are.
            return f"{view}above {'most of' if self.kind == 'normal' else 'all'} {self.of}"
        return f"{view}above {self.higher_than} of {self.of}"

    @property
    def why(self) -> str | None:
        """The difference to normal recordings in a sentence, or why it is not judged."""
        if self.not_judged is not None:
            return self.not_judged
        return None if self.explanation is None else self.explanation.sentence

    @property
    def heatmap(self) -> Float32 | None:
        """See `Explanation.heatmap_BC`."""
        return None if self.explanation is None else self.explanation.heatmap_BC

    @property
    def sketch_db(self) -> Float32 | None:
        """The recording's spectrogram, (bands, columns) in dB, on the grid of `heatmap`."""
        return None if self.sketch_BC is None else sketch_db(self.sketch_BC)

    def as_json(self) -> dict[str, Any]:
        """JSON-able fields, the same for every recording, without the heat map."""
        explanation = self.explanation
        region = None
        if explanation is not None and explanation.low_hz is not None:
            region = {
                "low_hz": round(explanation.low_hz, 1),
                "high_hz": round(explanation.high_hz or 0.0, 1),
                "start_s": round(explanation.start_s or 0.0, 2),
                "end_s": round(explanation.end_s or 0.0, 2),
                "change_db": round(explanation.change_db or 0.0, 1),
            }
        error = self.error
        return {
            "record": "recording",
            "file": str(self.path),
            "start_s": self.start_s,
            "end_s": self.end_s,
            "verdict": self.kind,
            "score": self.score,
            "event_score": self.event_score,
            "tone_score": self.tone_score,
            "p_value": self.p_value,
            "extrapolated": self.extrapolated,
            "decided_by": None if self.score is None else self.decided_by,
            "higher_than": self.higher_than,
            "of": self.of,
            "why": error.cause if error is not None else self.why,
            "region": region,
            "nearest": None if explanation is None else explanation.nearest,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "error": None if error is None else {"cause": error.cause, "next_step": error.next_step},
        }


def gravest(verdicts: Iterable[Verdict]) -> Verdict:
    """An alarm before a suspect, a normal recording and one that is not judged; of equals that of least p-value."""
    return min(verdicts, key=lambda each: (-GRAVITY[each.kind], each.error is not None, each.p_value or 0.0))


def worst(verdicts: Sequence[Verdict], seconds: float) -> Verdict:
    """The verdict on a recording of `seconds` by those on its segments: the gravest one.

    Segments that are not judged count where none is, and are mentioned.
    """
    judging = gravest(verdicts)
    warnings = [warning for verdict in verdicts for warning in verdict.warnings]
    if judging.kind != "not judged":
        warnings += [
            f"{verdict.start_s:.4g}-{verdict.end_s:.4g} s are not judged: "
            f"{verdict.why if verdict.error is None else verdict.error.cause}"
            for verdict in verdicts
            if verdict.kind == "not judged"
        ]
    return replace(
        judging,
        seconds=seconds,
        warnings=tuple(dict.fromkeys(warnings)),
        segment_scores=tuple(v.score for v in verdicts if v.kind != "not judged" and v.score is not None),
    )

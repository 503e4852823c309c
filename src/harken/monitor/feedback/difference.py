"""What two versions of a model say of the same sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harken.core.errors import HarkenError
from harken.core.names import shown
from harken.core.sentences import Sentence
from harken.monitor.basis import Heard
from harken.monitor.fitted import Fitted
from harken.monitor.judged import alarm_of, judged_clips
from harken.monitor.verdict import Kind


@dataclass(frozen=True)
class ComparedClip:
    """One recording, or segment, as each of two versions judges it. kinds, scores: of the first and the second."""

    name: str
    kinds: tuple[Kind, Kind]
    scores: tuple[float | None, float | None]

    @property
    def differs(self) -> bool:
        """Whether it is of another kind."""
        return self.kinds[0] != self.kinds[1]


@dataclass(frozen=True)
class VersionDifference:
    """numbers: of the versions. thresholds: of their scores. compared: all recordings, in the order given."""

    numbers: tuple[int, int]
    thresholds: tuple[float, float]
    compared: tuple[ComparedClip, ...]

    def counts(self, version: int) -> dict[str, int]:
        """How many recordings are of each kind, by the first (0) or the second (1)."""
        return dict(Counter(clip.kinds[version] for clip in self.compared))

    @property
    def differing(self) -> list[ComparedClip]:
        """Recordings of another kind."""
        return [clip for clip in self.compared if clip.differs]

    def sentences(self) -> list[str]:
        """For people: alarms of each, and each recording that differs."""
        lines = []
        for place, number in enumerate(self.numbers):
            counts = self.counts(place)
            lines.append(
                f"version {number}: {counts.get('alarm', 0)} of {len(self.compared)} recordings are alarms, "
                f"{counts.get('suspect', 0)} suspect; alarm above score {self.thresholds[place]:.4g}"
            )
        lines.append(f"{len(self.differing)} recordings differ")
        for clip in self.differing:
            first, second = (f"{kind} ({_score(score)})" for kind, score in zip(clip.kinds, clip.scores, strict=True))
            lines.append(f"  {shown(clip.name)}: {first} -> {second}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return {
            "versions": list(self.numbers),
            "thresholds": list(self.thresholds),
            "recordings": len(self.compared),
            "counts": [self.counts(0), self.counts(1)],
            "differing": [
                {"name": clip.name, "kinds": list(clip.kinds), "scores": list(clip.scores)} for clip in self.differing
            ],
        }


def compare_versions(first: Fitted, second: Fitted, heard: Sequence[Heard]) -> VersionDifference:
    """What both say of recordings, each by itself, at what the alarm of each is set to.

    Raises HarkenError where they do not listen in the same way, or nothing is given.
    """
    if not heard:
        raise HarkenError(
            Sentence("no recordings were given"), next_step=Sentence("Name recordings or folders of them")
        )
    if first.spec != second.spec:
        raise HarkenError(
            Sentence(
                "versions {first} and {second} do not listen in the same way",
                first=first.version.number,
                second=second.version.number,
            ),
            next_step=Sentence("Compare versions of one model"),
        )
    features = [clip.features for clip in heard]
    judged = [judged_clips(fitted, features) for fitted in (first, second)]
    return VersionDifference(
        (first.version.number, second.version.number),
        (alarm_of(first).threshold, alarm_of(second).threshold),
        tuple(
            ComparedClip(clip.name, (a.kind, b.kind), (a.score, b.score))
            for clip, a, b in zip(heard, *judged, strict=True)
        ),
    )


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.4g}"

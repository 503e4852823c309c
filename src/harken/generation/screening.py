"""Generated clips that are kept: those whose class is the intended one, and of which the classifier is not too sure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import AudioError
from harken.data.clips import Clip
from harken.generation.conditions import ConditionKey

#: why a clip has no intended class
UNLEARNED = "the classifier has not learned its condition"
#: why a clip is not kept
Verdict = Literal["kept", "another class", "too confident", "unusable"]


class Classifier(Protocol):
    """What generated clips are screened by."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of its classes."""

    def intended(self, clip: Clip) -> int | None:
        """The class that a clip was generated to be of; None where it has not learned any such clip."""

    def probabilities(self, clips: Sequence[Clip]) -> Sequence[NDArray[np.floating] | AudioError]:
        """(C,) probabilities of each clip, or why it has none."""


@dataclass(frozen=True)
class Screened:
    """condition: of the clip. intended, predicted: classes; None where not known. confidence: probability of the
    predicted class. verdict: why it was not kept."""

    clip_id: str
    condition: str
    intended: str | None
    predicted: str | None
    confidence: float | None
    verdict: Verdict
    error: str | None = None


@dataclass(frozen=True)
class Count:
    """Clips of a condition: all, and by what became of them."""

    made: int
    kept: int
    another_class: int
    too_confident: int
    unusable: int


def screen(clips: Sequence[Clip], classifier: Classifier, most_confidence: float | None) -> list[Screened]:
    """A clip is kept where its predicted class is the intended one and its confidence is at most `most_confidence`
    (THUEE, DCASE 2025, sections 3.1, without a limit, and 3.2)."""
    rows = []
    for clip, probabilities_K in zip(clips, classifier.probabilities(clips), strict=True):
        condition, intended = str(ConditionKey.of(clip)), classifier.intended(clip)
        name = None if intended is None else classifier.classes[intended]
        if isinstance(probabilities_K, AudioError) or intended is None:
            error = UNLEARNED
            if isinstance(probabilities_K, AudioError):
                error = str(probabilities_K)
            rows.append(Screened(clip.clip_id, condition, name, None, None, "unusable", error))
            continue
        predicted = int(np.argmax(probabilities_K))
        confidence = float(probabilities_K[predicted])
        verdict: Verdict = "kept"
        if predicted != intended:
            verdict = "another class"
        elif most_confidence is not None and confidence > most_confidence:
            verdict = "too confident"
        rows.append(Screened(clip.clip_id, condition, name, classifier.classes[predicted], confidence, verdict))
    return rows


def counts_by_condition(rows: Sequence[Screened]) -> Mapping[str, Count]:
    """What became of the clips of each condition."""
    counts: dict[str, Counter[Verdict]] = defaultdict(Counter)
    for row in rows:
        counts[row.condition][row.verdict] += 1
    return {
        condition: Count(
            count.total(), count["kept"], count["another class"], count["too confident"], count["unusable"]
        )
        for condition, count in sorted(counts.items())
    }


def confidence_limit(confidences: Sequence[float], quantile: float) -> float | None:
    """The quantile of the confidence on held-out real clips; None without any.

    The report of THUEE says "not excessively high"; the rule is ours.
    """
    return float(np.quantile(np.array(confidences, dtype=np.float64), quantile)) if len(confidences) else None

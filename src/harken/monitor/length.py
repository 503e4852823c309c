"""Scores of recordings that are shorter or longer than those learned from, brought to those of equal length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.audio.segments import Form, Segment
from harken.detection import AnomalyDetector
from harken.embeddings.embedder import ClipFeatures
from harken.embeddings.isolated import Extracted
from harken.monitor.view_scores import ViewScores

#: a recording is judged from so many times the shortest one learned from
SHORTEST = 0.8
#: the same where the effect of length on scores is not known
AS_LONG = 0.98
#: fewest and most recordings by which the effect of length is measured
_FEWEST, _MOST = 6, 60
#: largest power that is believed
MOST_POWER = 4.0

Floats = NDArray[np.floating]
#: features of named segments: `extract` with all else that it needs
Hear = Callable[[Mapping[Path, Segment]], Iterable[Extracted]]


@dataclass(frozen=True)
class LengthEffect:
    """How scores of normal sound depend on length.

    Statistics over time settle with length, so that the scores of shorter recordings of the same sound are higher: at
    f times the length, f^-a times as high; scores of tones, which are in dB, -a ln f dB higher. sound, events, tones:
    a of the scores, not below 0. tones: None where it was not measured, since the model had no view of them then: for
    shorter recordings they have no score.
    """

    sound: float
    events: float
    tones: float | None = None

    def brought_to_length(self, ratio: float, scores: ViewScores) -> ViewScores:
        """The scores of a recording of `ratio` times the length, as they would be at the length learned from.

        Those of longer recordings stay: beyond the length at which the power is measured, it would raise false alarms.
        """
        ratio = min(ratio, 1.0)
        tone = scores.tone
        if tone is not None and self.tones is not None:
            tone += self.tones * log(ratio)
        elif ratio < AS_LONG - 1e-3:
            tone = None
        return ViewScores(
            scores.sound * ratio**self.sound,
            None if scores.event is None else scores.event * ratio**self.events,
            tone,
        )


def shortened(paths: Sequence[Path], forms: Mapping[Path, Form], segments: Mapping[Path, Segment]) -> list[Segment]:
    """The first `SHORTEST` of each recording or segment. forms: of recordings; segments: by name."""
    uncut = [segments.get(path) or Segment(path, 0, forms[path].frames, forms[path].sample_rate) for path in paths]
    return [replace(heard, frames=max(1, round(SHORTEST * heard.frames))) for heard in uncut]


def length_effect(
    detectors: tuple[AnomalyDetector, AnomalyDetector, AnomalyDetector | None],
    features: Sequence[ClipFeatures],
    domains: Sequence[str],
    paths: Sequence[Path],
    forms: Mapping[Path, Form],
    segments: Mapping[Path, Segment],
    hear: Hear,
) -> LengthEffect | None:
    """Measured on up to `_MOST` recordings, as they are and shortened to `SHORTEST`; None where it cannot be.

    detectors: of the sound as a whole, of short events and of tones, which give kind and parameters and are not
    changed; each half of the recordings is scored by one of the other half. features, domains, paths: (N,) of the
    recordings learned from. forms, segments: see `shortened`.
    """
    usable = [row for row, path in enumerate(paths) if path in segments or path in forms]
    if len(usable) < _FEWEST:
        return None
    rows = [usable[place] for place in np.unique(np.linspace(0, len(usable) - 1, min(_MOST, len(usable))).astype(int))]
    cuts = shortened([paths[row] for row in rows], forms, segments)
    heard = zip(rows, hear({cut.path: cut for cut in cuts}), strict=True)
    short = {row: result.features for row, result in heard if result.features is not None}
    sound = _power(
        detectors[0],
        [clip.embedding for clip in features],
        {row: clip.embedding for row, clip in short.items()},
        domains,
    )
    events = _power(
        detectors[1],
        [clip.short_time_D for clip in features],
        {row: clip.short_time_D for row, clip in short.items()},
        domains,
    )
    tones = None
    if detectors[2] is not None:
        tones = _power(
            detectors[2],
            [clip.steady_B for clip in features],
            {row: clip.steady_B for row, clip in short.items()},
            domains,
            logarithmic=False,
        )
    return None if sound is None else LengthEffect(sound, events or 0.0, None if detectors[2] is None else tones or 0.0)


def _power(
    detector: AnomalyDetector,
    whole_ND: Sequence[ArrayLike],
    short: Mapping[int, ArrayLike],
    domains: Sequence[str],
    *,
    logarithmic: bool = True,
) -> float | None:
    """whole_ND: vectors of all recordings; short: of some rows, shortened. None where a half cannot be learned from.
    logarithmic: of scores in dB, the power of the ratio is a difference."""
    rows_ND, domains_N = np.stack([np.asarray(row) for row in whole_ND]), np.asarray(domains)
    odd_N = np.arange(len(rows_ND)) % 2 == 1
    differences: list[float] = []
    for half_N in (odd_N, ~odd_N):
        queries = [row for row in short if half_N[row]]
        if not queries:
            continue
        others = type(detector)(**detector.get_params())
        try:
            others.fit_to_score(rows_ND[~half_N], domains_N[~half_N])
            whole_Q = others.score(rows_ND[queries])
            short_Q = others.score(np.stack([np.asarray(short[row]) for row in queries]))
        except ValueError:
            return None
        if not logarithmic:
            differences += (short_Q - whole_Q).tolist()
        elif min(whole_Q.min(), short_Q.min()) <= 0:
            return None
        else:
            differences += np.log(short_Q / whole_Q).tolist()
    if not differences:
        return None
    return float(np.clip(-np.mean(differences) / np.log(SHORTEST), 0.0, MOST_POWER))

"""One recording, or a segment of one, judged by what was learned: scores, verdict, explanation."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.audio.quality import HEADER_KINDS
from harken.audio.segments import Segment
from harken.core.threads import one_thread
from harken.detection.base import canonical_order
from harken.detection.neighbours import nearest
from harken.embeddings.embedder import ClipFeatures, sketch_bands
from harken.embeddings.sketch import sketch_db
from harken.monitor.alarm import AlarmSetting
from harken.monitor.channel_health import NormalHealth
from harken.monitor.envelope import Envelope
from harken.monitor.explain import Explanation, explain
from harken.monitor.fitted import Fitted
from harken.monitor.judge import judge
from harken.monitor.length import AS_LONG, SHORTEST
from harken.monitor.sensor import level_note, not_judged
from harken.monitor.verdict import Verdict

Float32 = NDArray[np.float32]


class ClipJudge:
    """Judges features of recordings. It does not depend on what the alarm of `fitted` is set to."""

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted
        self.training = fitted.training

    def verdict(
        self, path: Path, features: ClipFeatures, alarm: AlarmSetting, segment: Segment | None = None, among: int = 1
    ) -> Verdict:
        """alarm: for what is judged. segment: of the recording, if it is one; among: so many, of which the worst judges
        the recording."""
        times = (None, None) if segment is None else (segment.start_s, segment.end_s)
        too_short = self._too_short(features.seconds)
        if too_short is not None:
            return Verdict(
                path,
                not_judged=too_short,
                warnings=tuple(finding.sentence for finding in features.findings if finding.kind in HEADER_KINDS),
                seconds=features.seconds,
                sha256=features.sha256,
                start_s=times[0],
                end_s=times[1],
                unheard="short",
            )
        events, length = self.fitted.events, self.fitted.length
        with one_thread():
            scores_N, nearest_N = self.fitted.detector.score_with_nearest(features.embedding[None])
        score = float(scores_N[0])
        event_score = None if events is None else float(events.score(features.short_time_D[None])[0])
        if length is not None:
            score, event_score = length.brought_to_length(self._ratio(features.seconds), score, event_score)
        learned_row = self.training.rows_by_sha256.get(features.sha256)
        learned: tuple[str, ...] = ()
        if learned_row is not None:
            # Its own embedding is among those it would be compared with.
            score = float(self.training.scores_N[learned_row])
            event_score = None if events is None else float(events.scores_N[learned_row])
            learned = ("is one of the recordings that the model learned from: the score is its held-out one",)
        row = self.nearest_normal(features.embedding) if nearest_N is None else int(self._order[nearest_N[0]])
        health, normal_health = features.health, self._normal_health
        reason, level = None, None
        if health is not None and normal_health is not None:
            reason = not_judged(health, normal_health, features.seconds)
            level = level_note(health, normal_health)
        level_notes = (level,) if level is not None and reason is None else ()
        judged = judge(score, event_score, alarm, among)
        return Verdict(
            path=path,
            kind=judged.kind if reason is None else "not judged",
            score=score,
            event_score=event_score,
            p_value=judged.p_value,
            extrapolated=judged.p_value < among * self.fitted.calibration.finest,
            decided_by=judged.decided_by,
            higher_than=judged.higher_than,
            of=judged.of,
            explanation=self._explain(features, row, unusual=judged.kind != "normal", start_s=times[0] or 0.0),
            sketch_BC=features.sketch_BC,
            warnings=(
                *learned,
                *(finding.sentence for finding in features.findings),
                *level_notes,
            ),
            seconds=features.seconds,
            sha256=features.sha256,
            not_judged=None if reason is None else reason.reason,
            unheard=None if reason is None else reason.kind,
            concerns=(*(finding.sentence for finding in features.findings if not finding.harmless), *level_notes),
            start_s=times[0],
            end_s=times[1],
        )

    @cached_property
    def _normal_health(self) -> NormalHealth | None:
        health_NCK = self.training.health_NCK
        return None if health_NCK is None else NormalHealth.of(health_NCK)

    # ---- length ------------------------------------------------------------------------------------------

    @cached_property
    def segment_s(self) -> float:
        """Usual length of the recordings learned from: that of the segments that longer ones are cut into."""
        return float(np.median(self.training.seconds_N))

    @cached_property
    def lengths_s(self) -> tuple[float, float]:
        """Of the shortest and the longest recording learned from."""
        return float(self.training.seconds_N.min()), float(self.training.seconds_N.max())

    def _ratio(self, seconds: float) -> float:
        """Length relative to the nearest one learned from."""
        shortest, longest = self.lengths_s
        return seconds / min(max(seconds, shortest), longest)

    def _too_short(self, seconds: float) -> str | None:
        """Why a recording is too short to be judged, if it is."""
        # Lengths of files are rounded.
        if self._ratio(seconds) >= (AS_LONG if self.fitted.length is None else SHORTEST) - 1e-3:
            return None
        return (
            f"lasts {seconds:.3g} s, and the model learned from recordings of {self.segment_s:.3g} s: record as long, "
            f"or fit with --segment {np.floor(100 * seconds) / 100:g}"
        )

    # ---- explanation -------------------------------------------------------------------------------------

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return canonical_order(self.training.embeddings_ND)

    def nearest_normal(self, embedding_D: Float32) -> int:
        """Number of the training recording that is nearest, every dimension standardised."""
        mean_D, scale_D = self.training.scaling
        query_D = (embedding_D - mean_D) / scale_D
        return int(nearest(query_D[None], self.training.standardised_ND, 1)[1][0, 0])

    def _explain(self, features: ClipFeatures, row: int, *, unusual: bool, start_s: float) -> Explanation:
        """row: of the training recording that is most alike: the one it was scored by, else the nearest."""
        return explain(
            sketch_db(features.sketch_BC),
            self._envelope,
            centres_hz_B=self.band_centres_hz,
            seconds=features.seconds,
            start_s=start_s,
            nearest=self.training.names[row],
            anomalous=unusual,
        )

    @cached_property
    def _envelope(self) -> Envelope:
        return Envelope.of(self.training.sketches_NBC, aligned=self.fitted.spec.level == "normalised")

    @cached_property
    def band_centres_hz(self) -> Float32:
        """Centre frequencies of the bands of heat maps and sketches."""
        return sketch_bands(self.fitted.spec).centres_hz_M

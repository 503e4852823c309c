"""One recording, or a segment of one, judged by what was learned: scores, verdict, explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.audio.quality import HEADER_KINDS
from harken.audio.segments import Segment
from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.core.threads import one_thread
from harken.detection.base import canonical_order
from harken.detection.neighbours import Bank, nearest
from harken.embeddings.embedder import ClipFeatures, sketch_bands
from harken.embeddings.sketch import sketch_db
from harken.monitor.alarm import AlarmSetting
from harken.monitor.channel_health import NormalHealth, NotJudged
from harken.monitor.envelope import Envelope
from harken.monitor.explain import StandsOut, explain, standing_out
from harken.monitor.fitted import Fitted
from harken.monitor.judge import judge
from harken.monitor.length import AS_LONG, SHORTEST
from harken.monitor.off import OffJudge
from harken.monitor.sensor import level_note, not_judged
from harken.monitor.verdict import LEARNED, Verdict
from harken.monitor.view_scores import ViewScores

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class ClipScores:
    """scores: at the length learned from. nearest: row of the normal recording most alike: the one it was scored by, if
    there is one."""

    scores: ViewScores
    nearest: int


@dataclass(frozen=True, eq=False)
class NormalComparison:
    """Compares recordings of `shortest_s` seconds and more with all normal ones; for worker processes."""

    envelope: Envelope
    centres_hz_B: Float32
    shortest_s: float

    def __call__(self, features: ClipFeatures) -> StandsOut | None:
        if features.seconds < self.shortest_s:
            return None
        clip_BC = sketch_db(features.sketch_BC)
        return standing_out(clip_BC, self.envelope, centres_hz_B=self.centres_hz_B, seconds=features.seconds)


class ClipJudge:
    """Judges features of recordings. It does not depend on what the alarm of `fitted` is set to."""

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted
        self.training = fitted.training

    def scores(self, features: Sequence[ClipFeatures]) -> list[ClipScores | None]:
        """Scores of several recordings, each as if it were alone; None for those that are too short to be judged."""
        judged = [clip for clip in features if self._too_short(clip.seconds) is None]
        if not judged:
            return [None] * len(features)
        embeddings_ND = np.stack([clip.embedding for clip in judged])
        if embeddings_ND.shape[1] != self.fitted.detector.dimensions:
            raise HarkenError(
                f"the model's encoder gives {embeddings_ND.shape[1]} numbers per recording, and its detector takes "
                f"{self.fitted.detector.dimensions}",
                next_step="Fit the model again",
            )
        length = self.fitted.length
        with one_thread():
            scores_N, nearest_N = self.fitted.detector.score_with_nearest(embeddings_ND)
            rows_N = self.nearest_normals(embeddings_ND) if nearest_N is None else self._order[nearest_N]
        event_scores, tone_scores = self._event_scores(judged), self._tone_scores(judged)
        results: list[ClipScores | None] = []
        row = 0
        for clip in features:
            if self._too_short(clip.seconds) is not None:
                results.append(None)
                continue
            scores = ViewScores(float(scores_N[row]), event_scores[row], tone_scores[row])
            if length is not None:
                scores = length.brought_to_length(self._ratio(clip.seconds), scores)
            results.append(ClipScores(scores, int(rows_N[row])))
            row += 1
        return results

    def _event_scores(self, clips: Sequence[ClipFeatures]) -> Sequence[float | None]:
        view = self.fitted.events
        if view is None:
            return [None] * len(clips)
        return view.score(np.stack([clip.short_time_D for clip in clips])).tolist()  # type: ignore[no-any-return]

    def _tone_scores(self, clips: Sequence[ClipFeatures]) -> Sequence[float | None]:
        """None for known faults of earlier versions, whose steady levels were not kept."""
        view = self.fitted.tones
        scores: list[float | None] = [None] * len(clips)
        rows = [row for row, clip in enumerate(clips) if clip.steady_B.size]
        if view is not None and rows:
            for row, score in zip(rows, view.score(np.stack([clips[row].steady_B for row in rows])), strict=True):
                scores[row] = float(score)
        return scores

    def verdict(
        self,
        path: Path,
        features: ClipFeatures,
        scores: ClipScores | None,
        alarm: AlarmSetting,
        segment: Segment | None = None,
        among: int = 1,
        compared: StandsOut | None = None,
    ) -> Verdict:
        """scores: of `scores`. alarm: for what is judged. segment: of the recording, if it is one; among: so many, of
        which the worst judges the recording. compared: by `comparison`, if it is there."""
        times = (None, None) if segment is None else (segment.start_s, segment.end_s)
        if scores is None:
            return Verdict(
                path,
                not_judged=self._too_short(features.seconds),
                warnings=tuple(finding.sentence for finding in features.findings if finding.kind in HEADER_KINDS),
                seconds=features.seconds,
                sha256=features.sha256,
                start_s=times[0],
                end_s=times[1],
                unheard="short",
            )
        views = scores.scores
        learned_row = self.learned_row(features)
        learned: tuple[str, ...] = ()
        if learned_row is not None:
            # Its own embedding is among those it would be compared with.
            views = self.fitted.held_out(learned_row)
            learned = (LEARNED,)
        reason = self.unheard(features)
        health, normal_health = features.health, self._normal_health
        level = level_note(health, normal_health) if health is not None and normal_health is not None else None
        level_notes = (level,) if level is not None and reason is None else ()
        judged = judge(views, alarm, among)
        return Verdict(
            path=path,
            kind=judged.kind if reason is None else "not judged",
            score=views.sound,
            event_score=views.event,
            tone_score=views.tone,
            p_value=judged.p_value,
            extrapolated=judged.p_value < among * self.fitted.calibration.finest,
            decided_by=judged.decided_by,
            higher_than=judged.higher_than,
            of=judged.of,
            explanation=explain(
                sketch_db(features.sketch_BC),
                self._envelope,
                centres_hz_B=self.band_centres_hz,
                seconds=features.seconds,
                start_s=times[0] or 0.0,
                nearest=self.training.names[scores.nearest],
                anomalous=judged.kind != "normal",
                compared=compared,
            ),
            sketch_BC=features.sketch_BC,
            features=features,
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

    def unheard(self, features: ClipFeatures) -> NotJudged | None:
        """Why a recording that is long enough says nothing about the machine; None where it can be judged."""
        health, normal_health = features.health, self._normal_health
        if health is not None and normal_health is not None:
            reason = not_judged(health, normal_health, features.seconds)
            if reason is not None:
                return reason
        if self._off is not None and self._off.is_off(features.embedding, features.level_db):
            return NotJudged("off", Sentence("sounds like the recordings of the machine switched off"))
        return None

    def too_short(self, features: ClipFeatures) -> str | None:
        """Why a recording is too short to be judged, if it is."""
        return self._too_short(features.seconds)

    def learned_row(self, features: ClipFeatures) -> int | None:
        """Row of the recording learned from whose file, or sound in another container, this is; None for others."""
        row = self.training.rows_by_sha256.get(features.sha256)
        if row is not None:
            return row
        # The same samples have the same embedding to the last bit, and others have not.
        row = self.training.rows_by_embedding.get(features.embedding.tobytes())
        return row if row is not None and self.training.seconds_N[row] == features.seconds else None

    @cached_property
    def _off(self) -> OffJudge | None:
        return None if self.fitted.off is None else OffJudge(self.fitted.off, self.training)

    @cached_property
    def _normal_health(self) -> NormalHealth | None:
        health_NCK = self.training.health_NCK
        return None if health_NCK is None else NormalHealth.of(health_NCK, segments=self.training.segments)

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

    @property
    def _shortest(self) -> float:
        """Length, relative to that of the shortest recording learned from, from which on recordings are judged."""
        # Lengths of files are rounded.
        return (AS_LONG if self.fitted.length is None else SHORTEST) - 1e-3

    def _too_short(self, seconds: float) -> str | None:
        """Why a recording is too short to be judged, if it is."""
        if self._ratio(seconds) >= self._shortest:
            return None
        return Sentence(
            "lasts {seconds:.3g} s, and the model learned from recordings of {usual:.3g} s: record as long, or fit "
            "with --segment {segment:g}",
            seconds=seconds, usual=self.segment_s, segment=float(np.floor(100 * seconds) / 100),
        )  # fmt: skip

    # ---- explanation -------------------------------------------------------------------------------------

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return canonical_order(self.training.embeddings_ND)

    @cached_property
    def _standardised(self) -> Bank:
        return Bank(self.training.standardised_ND)

    def nearest_normals(self, embeddings_ND: Float32) -> NDArray[np.int64]:
        """(N,) rows of the training recordings that are nearest, every dimension standardised."""
        mean_D, scale_D = self.training.scaling
        return nearest((embeddings_ND - mean_D) / scale_D, self._standardised, 1)[1][:, 0]

    @property
    def comparison(self) -> NormalComparison:
        """Compares recordings with the normal ones in worker processes, for `verdict`."""
        return NormalComparison(self._envelope, self.band_centres_hz, self.lengths_s[0] * self._shortest)

    @cached_property
    def _envelope(self) -> Envelope:
        return Envelope.of(
            self.training.sketches_NBC,
            aligned=self.fitted.spec.level == "normalised",
            segments=self.training.segments,
        )

    @cached_property
    def band_centres_hz(self) -> Float32:
        """Centre frequencies of the bands of heat maps and sketches."""
        return sketch_bands(self.fitted.spec).centres_hz_M

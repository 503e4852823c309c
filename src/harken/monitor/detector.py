"""The detector that anyone can use: fit on normal recordings, score others, say why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.audio.channels import Microphones
from harken.audio.decode import ALL_FORMATS, DEFAULT_FORMATS, Limits
from harken.audio.listen import Level
from harken.core.threads import one_thread
from harken.data.chronology import OrderChoice
from harken.detection import DEFAULT_DETECTOR
from harken.detection.base import canonical_order
from harken.detection.neighbours import nearest
from harken.embeddings.embedder import ClipFeatures, Embedder, sketch_bands
from harken.embeddings.extract import extract
from harken.embeddings.sketch import sketch_db
from harken.monitor.alarm import AUTO, AlarmSetting, interval_of
from harken.monitor.channel_health import NormalHealth
from harken.monitor.envelope import Envelope
from harken.monitor.explain import Explanation, explain
from harken.monitor.fit import fit_normal
from harken.monitor.fitted import Fitted
from harken.monitor.judge import judge
from harken.monitor.sensor import level_note, not_judged
from harken.monitor.sequence import Sequence
from harken.monitor.stored import load_fitted, save_fitted
from harken.monitor.verdict import Verdict

Float32 = NDArray[np.float32]

#: what verdicts of samples in memory are called
IN_MEMORY = Path("<samples>")


class Detector:
    """A fitted detector. Make one with `Detector.fit` or `harken.load`."""

    def __init__(self, fitted: Fitted) -> None:
        """fitted: what was learned. Raises HarkenError where its `false_alarms` or `every` is not understood."""
        self.fitted = fitted
        self.spec = fitted.spec
        self.weights = fitted.weights
        self.detector = fitted.detector
        self.calibration = fitted.calibration
        self.events = fitted.events
        self.training = fitted.training
        self.notes = fitted.notes
        self.set_aside = fitted.set_aside
        self.alarm = self._setting(fitted.false_alarms, fitted.every)

    def _setting(self, false_alarms: str, every: str | None) -> AlarmSetting:
        interval_s = interval_of(every, float(np.median(self.training.seconds_N)))
        events = None if self.events is None else self.events.calibration
        return AlarmSetting(false_alarms, self.calibration, interval_s, self.fitted.block, events)

    def set_alarm(self, false_alarms: str = AUTO, every: str | None = None) -> None:
        """Set the alarm for a rate such as `auto`, `0.1%` or `1/week`; see `fit`.

        Raises HarkenError for no such rate or period; the alarm is then what it was.
        """
        self.alarm = self._setting(false_alarms, every)
        self.fitted = replace(self.fitted, false_alarms=false_alarms, every=every)

    @property
    def threshold(self) -> float:
        """Recordings that score above it are alarms."""
        return self.alarm.threshold

    def __repr__(self) -> str:
        """What it learned from and listens with."""
        return (
            f"<harken.Detector: {self.spec.encoder} and {self.detector.name}, learned from {len(self.training.names)} "
            f"recordings of {self.spec.sample_rate} Hz; alarm above {self.threshold:.4g} ({self.fitted.false_alarms})>"
        )

    # ---- made, kept, read --------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        paths: str | Path | Iterable[str | Path],
        *,
        encoder: str = "spectral",
        weights: str | Path | None = None,
        config: Mapping[str, Any] | None = None,
        layer: str | None = None,
        pooling: str | None = None,
        level: Level = "normalised",
        microphones: Microphones = "all",
        detector: str = DEFAULT_DETECTOR,
        parameters: Mapping[str, Any] | None = None,
        false_alarms: str = AUTO,
        every: str | None = None,
        states: str | None = None,
        order: OrderChoice = "auto",
        exclude: Iterable[str] = (),
        keep_outliers: bool = False,
        store: str | Path | None = None,
        workers: int | None = None,
        all_formats: bool = False,
        limits: Limits = Limits(),
        progress: Callable[[int, int], None] | None = None,
    ) -> Detector:
        """Learn the normal sound of one machine.

        paths: recordings and folders of recordings.
        encoder, config, layer, pooling: see `list_encoders`; weights: a catalogue name or a file.
        level: `normalised` ignores loudness, `recorded` listens to it. detector, parameters: see `list_detectors`.
        microphones: `all` channels, `near` or `far` of two, or the near one with the noise of the far one `cancelled`
        or `subtracted` (`harken.audio.cancel`).
        false_alarms: the rate that the alarm is set for: `auto`, the rarest that still finds faults; `1/week`; `0.1%`.
        every: time from the beginning of one recording to that of the next, as `10min`; None: gapless.
        states: regular expression whose first group (or match) in a file's name is its operating state, as
        `_(\\d+)rpm`; without it, DCASE names give domains, and states are looked for in other recordings.
        order: of recording, in which correlation in time is measured (`harken.data.chronology`): `auto`; `name`: the
        order given, folders by name; `time`: times in names, else of files; `none`: unknown.
        exclude: files, folders and patterns of names that are not learned from. keep_outliers: also learn from
        recordings that are unlike all others (`harken.detection.outliers`), which are else set aside.
        store: folder that keeps embeddings for the next run. workers: processes (0: none).
        progress: called with (done, all) recordings.
        Raises HarkenError when fewer than three recordings can be used.
        """
        fitted = fit_normal(
            paths,
            encoder=encoder,
            weights=weights,
            config=config,
            layer=layer,
            pooling=pooling,
            level=level,
            microphones=microphones,
            detector=detector,
            parameters=parameters,
            false_alarms=false_alarms,
            every=every,
            states=states,
            order=order,
            exclude=tuple(exclude),
            keep_outliers=keep_outliers,
            store=store,
            workers=workers,
            all_formats=all_formats,
            limits=limits,
            progress=progress,
        )
        return cls(fitted)

    def save(self, path: str | Path, *, embed_weights: bool = False) -> None:
        """Write the bundle: a directory, whole or not at all. Same detector, same bytes.

        embed_weights: copy large weights of the catalogue too, which are else named and read from the cache.
        """
        save_fitted(path, self.fitted, embed_weights=embed_weights)

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Read a bundle. Raises BundleError when it is missing, damaged or of a newer schema."""
        return cls(load_fitted(path))

    # ---- score -------------------------------------------------------------------------------------------

    def score(self, recording: str | Path | NDArray[np.floating], sample_rate: int | None = None) -> Verdict:
        """Judge one recording, in this process; the encoder is kept for the next.

        recording: a path, or floats within [-1, 1], (samples,) or (channels, samples), with their sample_rate in Hz.
        Raises AudioError when it cannot be scored, ValueError for samples without a rate.
        """
        if isinstance(recording, np.ndarray):
            return self._verdict(IN_MEMORY, self._embedder.analyse(recording, sample_rate=sample_rate))
        verdict = next(self.score_many([recording], workers=0))
        if verdict.error is not None:
            raise verdict.error
        return verdict

    def score_many(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        store: str | Path | None = None,
        workers: int | None = None,
        all_formats: bool = False,
        limits: Limits = Limits(),
    ) -> Iterator[Verdict]:
        """Judge recordings, in the order given, as they become ready; memory does not grow with their number.

        A recording that cannot be scored gives a verdict with `error`; the others are not affected.
        """
        for result in extract(
            [paths] if isinstance(paths, (str, Path)) else paths,
            self.spec,
            self.weights,
            store=store,
            workers=workers,
            limits=limits,
            formats=ALL_FORMATS if all_formats else DEFAULT_FORMATS,
            embedder=self._embedder if workers == 0 else None,
        ):
            if result.features is None:
                yield Verdict(result.path, error=result.error)
            else:
                yield self._verdict(result.path, result.features)

    @cached_property
    def _embedder(self) -> Embedder:
        return Embedder(self.spec, self.weights)

    def _verdict(self, path: Path, features: ClipFeatures) -> Verdict:
        with one_thread():
            scores_N, nearest_N = self.detector.score_with_nearest(features.embedding[None])
        score = float(scores_N[0])
        events = self.events
        event_score = None if events is None else float(events.score(features.short_time_D[None])[0])
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
        judged = judge(score, event_score, self.alarm)
        return Verdict(
            path=path,
            kind=judged.kind if reason is None else "not judged",
            score=score,
            event_score=event_score,
            p_value=judged.p_value,
            extrapolated=judged.p_value < self.calibration.finest,
            decided_by=judged.decided_by,
            higher_than=judged.higher_than,
            of=judged.of,
            explanation=self._explain(features, row, judged.kind != "normal"),
            sketch_BC=features.sketch_BC,
            warnings=(
                *learned,
                *(finding.detail for finding in features.findings),
                *((level,) if level is not None and reason is None else ()),
                *self._length_warning(features.seconds),
            ),
            seconds=features.seconds,
            sha256=features.sha256,
            not_judged=None if reason is None else reason.reason,
        )

    @cached_property
    def _normal_health(self) -> NormalHealth | None:
        health_NCK = self.training.health_NCK
        return None if health_NCK is None else NormalHealth.of(health_NCK)

    def sequence(self, memory: str | Path | None = None) -> Sequence:
        """Judges recordings together, in order of time: `sequence().update(verdict)` after each.

        memory: a file whose state is taken up, see `Sequence.load`.
        """
        return Sequence(self.alarm) if memory is None else Sequence.load(memory, self.alarm)

    def _length_warning(self, seconds: float) -> tuple[str, ...]:
        """Statistics over time settle with a clip's length, so p-values hold for clips like the normal ones."""
        shortest, longest = float(self.training.seconds_N.min()), float(self.training.seconds_N.max())
        if 0.8 * shortest <= seconds <= 1.25 * longest:
            return ()
        learned = f"{shortest:.3g} s" if shortest == longest else f"{shortest:.3g}-{longest:.3g} s"
        return (f"lasts {seconds:.3g} s, the model learned from clips of {learned}: the p-value does not hold",)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return canonical_order(self.training.embeddings_ND)

    def nearest_normal(self, embedding_D: Float32) -> int:
        """Number of the training recording that is nearest, every dimension standardised."""
        mean_D, scale_D = self.training.scaling
        query_D = (embedding_D - mean_D) / scale_D
        return int(nearest(query_D[None], self.training.standardised_ND, 1)[1][0, 0])

    def _explain(self, features: ClipFeatures, row: int, unusual: bool) -> Explanation:
        """row: of the training recording that is most alike: the one it was scored by, else the nearest."""
        return explain(
            sketch_db(features.sketch_BC),
            self._envelope,
            centres_hz_B=self.band_centres_hz,
            seconds=features.seconds,
            nearest=self.training.names[row],
            anomalous=unusual,
        )

    @cached_property
    def _envelope(self) -> Envelope:
        return Envelope.of(self.training.sketches_NBC, aligned=self.spec.level == "normalised")

    @cached_property
    def band_centres_hz(self) -> Float32:
        """Centre frequencies of the bands of heat maps and sketches."""
        return sketch_bands(self.spec).centres_hz_M


def load(path: str | Path) -> Detector:
    """Read a model made by `Detector.save` or `harken fit`."""
    return Detector.load(path)

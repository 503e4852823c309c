"""The detector that anyone can use: fit on normal recordings, score others, say why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.audio.channels import Microphones
from harken.audio.decode import ALL_FORMATS, DEFAULT_FORMATS, Limits
from harken.audio.listen import Level
from harken.core.errors import HarkenError
from harken.data.chronology import OrderChoice
from harken.detection import DEFAULT_DETECTOR, list_detectors
from harken.embeddings.embedder import Embedder
from harken.embeddings.extract import extract_together
from harken.embeddings.forms import read_forms
from harken.embeddings.isolated import Together
from harken.encoders.spectral import Spectral
from harken.monitor.alarm import AUTO, AlarmSetting
from harken.monitor.clip_judge import ClipJudge
from harken.monitor.cutting import cut_to_judge
from harken.monitor.fit import fit_normal
from harken.monitor.fitted import Fitted
from harken.monitor.judged import setting_of
from harken.monitor.segmented import verdicts, verdicts_of_samples
from harken.monitor.sequence import Sequence
from harken.monitor.stored import load_fitted, save_fitted
from harken.monitor.verdict import Verdict

Float32 = NDArray[np.float32]

#: recordings that are compared with the normal ones at once: less than the time of each by itself where those are many
_TOGETHER = Together(count=64, patience_s=0.25)
#: detectors whose `score` changes nothing, whatever they are made of
_SHAREABLE = frozenset(list_detectors()) - {"fusion"}
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
        self._judge = ClipJudge(fitted)
        self.alarm = self._setting(fitted.false_alarms, fitted.every)

    def _setting(self, false_alarms: str, every: str | None) -> AlarmSetting:
        return setting_of(self.fitted, false_alarms, every)

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
        segment: str = "auto",
        exclude: Iterable[str] = (),
        off: str | Path | Iterable[str | Path] = (),
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
        segment: seconds of the segments that recordings are cut into; `auto`: where they last over a minute, or are of
        unlike lengths; `none`: whole recordings. Models judge longer recordings in segments of the length learned from.
        exclude: files, folders and patterns of names that are not learned from. off: recordings, and folders of them,
        of the machine switched off in its usual surroundings: what sounds like them is not judged. keep_outliers: also
        learn from recordings that are unlike all others (`harken.detection.outliers`), which are else set aside.
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
            segment=segment,
            exclude=tuple(exclude),
            off=off,
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
            (verdict,) = self.score_samples([(recording, sample_rate)])
            if verdict.error is not None:
                raise verdict.error
            return verdict
        first, *others = islice(self.score_many([recording], workers=0), 2)
        if others:
            raise HarkenError(
                "is judged in segments, since it lasts over a minute",
                file=recording,
                next_step="Use score_many, or harken score, which give a verdict per segment",
            )
        if first.error is not None:
            raise first.error
        return first

    def score_many(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        store: str | Path | None = None,
        workers: int | None = None,
        all_formats: bool = False,
        limits: Limits = Limits(),
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Verdict]:
        """Judge recordings, in the order given, as they become ready; memory does not grow with number or length.

        A recording that is longer than those learned from is judged by its worst segment of their length, at a
        threshold that keeps the false-alarm rate of recordings. One of over a minute gives a verdict per segment.
        progress: called with (done, all) recordings and segments.
        A recording that cannot be scored gives a verdict with `error`; the others are not affected.
        """
        files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
        formats = ALL_FORMATS if all_formats else DEFAULT_FORMATS
        forms = read_forms(files, workers=workers, limits=limits, formats=formats)
        cutting = cut_to_judge(files, forms, self.segment_s, self._judge.lengths_s[1])
        results = extract_together(
            cutting.paths,
            self.spec,
            self.weights,
            _TOGETHER,
            store=store,
            workers=workers,
            limits=limits,
            formats=formats,
            embedder=self._embedder if workers == 0 or self.weights else None,
            segments=cutting.segments,
            further=self._judge.comparison,
        )
        yield from verdicts(self._judge, self.alarm, cutting, results, progress)

    def score_samples(self, sounds: Iterable[tuple[NDArray[np.floating], int | None]]) -> list[Verdict]:
        """Judge sounds in memory, each as if it were alone, in less time than one by one.

        sounds: see `score`. One that cannot be scored gives a verdict with `error`. Raises ValueError without a rate.
        """
        return verdicts_of_samples(self._judge, self.alarm, self._embedder, [*sounds], IN_MEMORY)

    def prepare(self) -> None:
        """Build the encoder now rather than at the first recording; what it needs is imported then."""
        _ = self._embedder

    def another(self) -> Detector | None:
        """This detector with an encoder of its own, to be used by another thread at the same time; None where that
        would need much memory (networks), or cannot be known to work (custom classes)."""
        if self.spec.encoder != Spectral.name or self.spec.more or self.detector.name not in _SHAREABLE:
            return None
        detector = copy(self)
        detector.__dict__.pop("_embedder", None)
        return detector

    @cached_property
    def _embedder(self) -> Embedder:
        return Embedder(self.spec, self.weights)

    def sequence(self, memory: str | Path | None = None) -> Sequence:
        """Judges recordings together, in order of time: `sequence().update(verdict)` after each.

        memory: a file whose state is taken up, see `Sequence.load`.
        """
        return Sequence(self.alarm) if memory is None else Sequence.load(memory, self.alarm)

    @property
    def segment_s(self) -> float:
        """Usual length of the recordings learned from: that of the segments that longer ones are cut into."""
        return self._judge.segment_s

    @property
    def band_centres_hz(self) -> Float32:
        """Centre frequencies of the bands of heat maps and sketches."""
        return self._judge.band_centres_hz


def load(path: str | Path) -> Detector:
    """Read a model made by `Detector.save` or `harken fit`."""
    return Detector.load(path)

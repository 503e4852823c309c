"""The detector that anyone can use: fit on normal recordings, score others, say why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harken.audio.channels import Microphones
from harken.audio.decode import ALL_FORMATS, DEFAULT_FORMATS, Limits
from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES
from harken.core.errors import BundleError, HarkenError
from harken.core.plugins import custom_names
from harken.core.threads import one_thread
from harken.core.version import __version__
from harken.data.clips import Clip, clips_from_files, find_recordings
from harken.detection import DEFAULT_DETECTOR, AnomalyDetector, create_detector
from harken.detection.blocks import find_blocks
from harken.detection.calibration import Calibration, parse_rate
from harken.detection.neighbours import nearest
from harken.detection.states import find_states
from harken.embeddings.embedder import ClipFeatures, EmbeddingSpec, make_spec, sketch_bands
from harken.embeddings.extract import Extracted, extract
from harken.embeddings.sketch import sketch_db
from harken.encoders import encoder_class
from harken.encoders.checkpoints import weights_for
from harken.monitor.bundle import read_bundle, write_bundle
from harken.monitor.explain import Explanation, explain
from harken.monitor.normal_set import (
    SetAside,
    Training,
    learnable,
    named_states,
    names_below_common,
    notes_on,
    twins,
    unfit,
    usual_form,
)
from harken.monitor.verdict import Verdict

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Detector:
    """A fitted detector. Make one with `Detector.fit` or `harken.load`."""

    def __init__(
        self,
        spec: EmbeddingSpec,
        weights: Mapping[str, np.ndarray] | None,
        detector: AnomalyDetector,
        calibration: Calibration,
        training: Training,
        false_alarms: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.spec = spec
        self.weights = weights
        self.detector = detector
        self.calibration = calibration
        self.training = training
        self.notes = notes
        self.set_aside: list[SetAside] = []
        self.promise(false_alarms)

    def promise(self, false_alarms: str) -> None:
        """Set the alarm threshold for a rate such as `0.1%` or `1/week`; HarkenError for no such rate."""
        self.false_alarms = false_alarms
        self.rate = parse_rate(false_alarms, float(np.median(self.training.seconds_N)))
        self.threshold = self.calibration.threshold(self.rate)

    # ---- fit ---------------------------------------------------------------------------------------------

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
        level: Literal["normalised", "recorded"] = "normalised",
        microphones: Microphones = "all",
        detector: str = DEFAULT_DETECTOR,
        parameters: Mapping[str, Any] | None = None,
        false_alarms: str = "1/week",
        states: str | None = None,
        store: str | Path | None = None,
        workers: int | None = None,
        all_formats: bool = False,
        limits: Limits = Limits(),
        progress: Callable[[int, int], None] | None = None,
    ) -> Detector:
        """Learn the normal sound of one machine.

        paths: recordings and folders of recordings, in the order in which they were made (a folder: by name).
        encoder, config, layer, pooling: see `list_encoders`; weights: a catalogue name or a file.
        level: `normalised` ignores loudness, `recorded` listens to it. detector, parameters: see `list_detectors`.
        microphones: `all` channels, `near` or `far` of two, or the near one with the noise of the far one `cancelled`
        or `subtracted` (`harken.audio.cancel`).
        false_alarms: what the threshold promises, `1/week` or `0.1%`.
        states: regular expression whose first group (or match) in a file's name is its operating state, as
        `_(\\d+)rpm`; without it, DCASE names give domains, and states are looked for in other recordings.
        store: folder that keeps embeddings for the next run. workers: processes (0: none).
        progress: called with (done, all) recordings.
        Raises HarkenError when fewer than three recordings can be used.
        """
        given = [paths] if isinstance(paths, (str, Path)) else list(paths)
        for own in custom_names([encoder, detector, parameters]):
            raise HarkenError(
                f"{own} cannot be part of a model, which runs no code that it names",
                next_step="Take a detector and encoder that Harken has; use your own in the bench (harken run)",
            )
        # Mistakes are cheaper before hours of recordings have been listened to.
        parse_rate(false_alarms, 10.0)
        if level not in ("normalised", "recorded"):
            raise HarkenError(f"unknown level {level!r}", next_step="Choose normalised or recorded")
        if microphones not in get_args(Microphones):
            known = ", ".join(get_args(Microphones))
            raise HarkenError(f"unknown microphones {microphones!r}", next_step=f"Choose one of {known}")
        if not given:
            raise HarkenError("no recordings were given", next_step="Name recordings or folders of them")
        formats = ALL_FORMATS if all_formats else DEFAULT_FORMATS
        files = find_recordings(given, ALL_SUFFIXES if all_formats else DEFAULT_SUFFIXES)
        aside: list[SetAside] = []
        clips = learnable(clips_from_files(files), aside)
        if not clips:
            raise HarkenError(
                "none of these recordings is named as a normal one of a machine",
                next_step="Give normal recordings to learn from",
            )
        if states is not None:
            named_states([clip.path for clip in clips], states)
        sample_rate, channels = usual_form([clip.path for clip in clips], workers, limits, formats)
        arrays: Mapping[str, np.ndarray] | None = None
        if encoder_class(encoder).needs_weights:
            trained_config, arrays = weights_for(encoder, weights)
            config = {**trained_config, **(config or {})}
        try:
            spec = make_spec(
                encoder,
                sample_rate=sample_rate,
                channels=channels,
                config=config,
                layer=layer,
                pooling=pooling,
                level=level,
                microphones=microphones,
                weights=arrays,
            )
            untrained = create_detector(detector, parameters)
        except (ValueError, TypeError) as error:
            raise HarkenError(str(error), next_step="Correct the setting") from None
        results = extract(
            [clip.path for clip in clips],
            spec,
            arrays,
            store=store,
            workers=workers,
            limits=limits,
            formats=formats,
        )
        kept: list[Clip] = []
        features: list[ClipFeatures] = []
        seen: dict[str, Path] = {}
        for done, (clip, result) in enumerate(zip(clips, results, strict=True), start=1):
            reason = unfit(result, seen)
            if reason is None and result.features is not None:
                seen[result.features.sha256] = clip.path
                kept.append(clip)
                features.append(result.features)
            else:
                aside.append(SetAside(clip.path, reason or ""))
            if progress is not None:
                progress(done, len(clips))
        if len(kept) < 3:
            first = f"; the first: {aside[0].path}: {aside[0].reason}" if aside else ""
            raise HarkenError(
                f"{len(kept)} of {len(files)} recordings can be learned from, at least 3 are needed{first}",
                next_step="Record more normal clips (30 or more make a useful model)",
            )
        if len(kept) > 3:
            same = twins(np.stack([found.embedding for found in features]))
            same = dict(list(same.items())[: len(kept) - 3])
            aside += [
                SetAside(kept[row].path, f"is nearly the same as {kept[first].path.name}")
                for row, first in sorted(same.items())
            ]
            kept = [clip for row, clip in enumerate(kept) if row not in same]
            features = [found for row, found in enumerate(features) if row not in same]
        named = None if states is None else named_states([clip.path for clip in kept], states)
        try:
            with one_thread():
                found = cls._learned(spec, arrays, untrained, kept, features, false_alarms, named)
        except (ValueError, TypeError) as error:
            # What a detector's parameters may be is known to the detector alone.
            raise HarkenError(f"{detector} cannot be fitted: {error}", next_step="Correct its parameters") from error
        found.set_aside = aside
        return found

    @classmethod
    def _learned(
        cls,
        spec: EmbeddingSpec,
        weights: Mapping[str, np.ndarray] | None,
        detector: AnomalyDetector,
        clips: Sequence[Clip],
        features: Sequence[ClipFeatures],
        false_alarms: str,
        named_states: list[str] | None,
    ) -> Detector:
        embeddings_ND = np.stack([found.embedding for found in features])
        notes: list[str] = []
        named = {clip.domain for clip in clips}
        if named_states is not None:
            domains = named_states
            notes.append(f"{len(set(domains))} operating states named by the files")
        elif "unknown" not in named and len(named) > 1:
            domains = [str(clip.domain) for clip in clips]
        else:
            states_N = find_states(embeddings_ND)
            domains = [f"state {state}" for state in states_N]
            if states_N.max() > 0:
                sizes = ", ".join(str(count) for count in np.bincount(states_N))
                notes.append(f"{states_N.max() + 1} operating states found, of {sizes} recordings")
        blocks = find_blocks(embeddings_ND)
        if blocks.drifting:
            notes.append(
                "these recordings drift: neighbours in time stay alike over a tenth of them and more, so the promise "
                "about false alarms rests on little; record over a longer time"
            )
        order_N = np.arange(len(clips))
        detector.fit(embeddings_ND, domains, order_N // blocks.length if blocks.length > 1 else None)
        calibration = Calibration.fit(detector.train_scores_)
        training = Training(
            names=names_below_common([clip.path for clip in clips]),
            domains=tuple(domains),
            embeddings_ND=embeddings_ND,
            sketches_NBC=[found.sketch_BC for found in features],
            scores_N=detector.train_scores_,
            levels_db_N=np.array([found.level_db for found in features]),
            seconds_N=np.array([found.seconds for found in features]),
        )
        notes += notes_on(training, calibration)
        return cls(spec, weights, detector, calibration, training, false_alarms, tuple(notes))

    # ---- score -------------------------------------------------------------------------------------------

    def score(self, path: str | Path) -> Verdict:
        """Judge one recording, in this process. Raises AudioError when it cannot be scored."""
        verdict = next(self.score_many([path], workers=0))
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
        formats = ALL_FORMATS if all_formats else DEFAULT_FORMATS
        given = [paths] if isinstance(paths, (str, Path)) else paths
        for result in extract(
            given, self.spec, self.weights, store=store, workers=workers, limits=limits, formats=formats
        ):
            yield self._verdict(result)

    def _verdict(self, result: Extracted) -> Verdict:
        features = result.features
        if features is None:
            return Verdict(result.path, error=result.error)
        with one_thread():
            score = float(self.detector.score(features.embedding[None])[0])
        p_value = float(self.calibration.p_value(score))
        is_anomaly = score > self.threshold
        return Verdict(
            path=result.path,
            score=score,
            p_value=p_value,
            is_anomaly=is_anomaly,
            extrapolated=p_value < self.calibration.finest,
            explanation=self._explain(features, is_anomaly),
            sketch_BC=features.sketch_BC,
            warnings=(*(finding.detail for finding in features.findings), *self._length_warning(features.seconds)),
            seconds=features.seconds,
        )

    def _length_warning(self, seconds: float) -> tuple[str, ...]:
        """Statistics over time settle with a clip's length, so p-values hold for clips like the normal ones."""
        shortest, longest = float(self.training.seconds_N.min()), float(self.training.seconds_N.max())
        if 0.8 * shortest <= seconds <= 1.25 * longest:
            return ()
        learned = f"{shortest:.3g} s" if shortest == longest else f"{shortest:.3g}-{longest:.3g} s"
        return (f"lasts {seconds:.3g} s, the model learned from clips of {learned}: the p-value does not hold",)

    def nearest_normal(self, embedding_D: Float32) -> int:
        """Number of the training recording that is nearest, every dimension standardised."""
        mean_D, scale_D = self.training.scaling
        query_D = (embedding_D - mean_D) / scale_D
        return int(nearest(query_D[None], self.training.standardised_ND, 1)[1][0, 0])

    def _explain(self, features: ClipFeatures, is_anomaly: bool) -> Explanation:
        row = self.nearest_normal(features.embedding)
        return explain(
            sketch_db(features.sketch_BC),
            sketch_db(self.training.sketches_NBC[row]),
            centres_hz_B=self.band_centres_hz,
            seconds=features.seconds,
            nearest=self.training.names[row],
            anomalous=is_anomaly,
        )

    @cached_property
    def band_centres_hz(self) -> Float32:
        """Centre frequencies of the bands of heat maps and sketches."""
        return sketch_bands(self.spec).centres_hz_M

    def held_out_alarms(self) -> dict[str, tuple[int, int]]:
        """For each training domain or state: how many held-out recordings would raise an alarm, of how many.

        Few target recordings say only roughly what to expect there, but more than the promise, which is about
        all recordings together.
        """
        of = np.asarray(self.training.domains)
        alarm = self.training.scores_N > self.threshold
        return {str(name): (int(alarm[of == name].sum()), int((of == name).sum())) for name in np.unique(of)}

    # ---- save and load -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the bundle: a directory, whole or not at all. Same detector, same bytes."""
        training = self.training
        widths = np.array([sketch.shape[1] for sketch in training.sketches_NBC], dtype=np.int64)
        parts: dict[str, dict[str, np.ndarray]] = {
            "detector": {name: _compact(array) for name, array in self.detector.state().items()},
            "training": {
                "embeddings": training.embeddings_ND,
                "sketches": np.concatenate(training.sketches_NBC, axis=1),
                "sketch_widths": widths,
                "scores": training.scores_N,
                "levels_db": training.levels_db_N,
                "seconds": training.seconds_N,
            },
        }
        if self.weights is not None:
            parts["encoder"] = dict(self.weights)
        about = {
            "harken": __version__,
            "spec": self.spec.model_dump(),
            "detector": self.detector.name,
            "parameters": self.detector.get_params(),
            "false_alarms": self.false_alarms,
            "effective_clips": self.calibration.effective,
            "names": list(training.names),
            "domains": list(training.domains),
            "notes": list(self.notes),
        }
        write_bundle(path, about, parts)

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Read a bundle. Raises BundleError when it is missing, damaged or of a newer schema."""
        about, parts = read_bundle(path)
        try:
            spec = EmbeddingSpec(**about["spec"])
            for own in custom_names([spec.encoder, about["detector"], about["parameters"]]):
                raise BundleError(
                    f"names code of someone's own, {own}, which a model never runs",
                    file=path,
                    next_step="Ask who made it; fit the model again",
                )
            weights = parts.get("encoder")
            state = {name: _wide(array) for name, array in parts["detector"].items()}
            with one_thread():
                detector = create_detector(about["detector"], about["parameters"]).restored(state)
            kept = parts["training"]
            edges = np.cumsum(kept["sketch_widths"])[:-1]
            training = Training(
                names=tuple(about["names"]),
                domains=tuple(about["domains"]),
                embeddings_ND=kept["embeddings"],
                sketches_NBC=np.split(kept["sketches"], edges, axis=1),
                scores_N=kept["scores"],
                levels_db_N=kept["levels_db"],
                seconds_N=kept["seconds"],
            )
            calibration = Calibration(np.sort(training.scores_N), float(about["effective_clips"]))
            return cls(spec, weights, detector, calibration, training, about["false_alarms"], tuple(about["notes"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"lacks something that a model needs ({error})", file=path, next_step="Fit the model again"
            ) from None


def load(path: str | Path) -> Detector:
    """Read a model made by `Detector.save` or `harken fit`."""
    return Detector.load(path)


def _compact(array: np.ndarray) -> np.ndarray:
    """float64 that holds float32 values, stored as float32: embeddings come as such."""
    if array.dtype == np.float64 and array.ndim == 2:
        single = array.astype(np.float32)
        if np.array_equal(single.astype(np.float64), array):
            return single
    return array


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array

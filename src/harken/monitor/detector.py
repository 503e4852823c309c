"""The detector that anyone can use: fit on normal recordings, score others, say why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from harken.detection import DEFAULT_DETECTOR, AnomalyDetector
from harken.detection.base import canonical_order
from harken.detection.calibration import Calibration, parse_rate
from harken.detection.neighbours import nearest
from harken.embeddings.embedder import ClipFeatures, Embedder, EmbeddingSpec, sketch_bands
from harken.embeddings.extract import extract
from harken.embeddings.sketch import sketch_db
from harken.monitor.envelope import Envelope
from harken.monitor.explain import Explanation, explain
from harken.monitor.fit import fit_normal
from harken.monitor.fitted import Fitted
from harken.monitor.normal_set import Excluded, Training
from harken.monitor.stored import load_fitted, save_fitted
from harken.monitor.verdict import Verdict

Float32 = NDArray[np.float32]

#: what verdicts of samples in memory are called
IN_MEMORY = Path("<samples>")


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
        block: int = 1,
    ) -> None:
        """spec, weights ... block: see `Fitted`. false_alarms: see `set_false_alarms`."""
        self.spec = spec
        self.weights = weights
        self.detector = detector
        self.calibration = calibration
        self.training = training
        self.notes = notes
        self.block = block
        self.set_aside: list[Excluded] = []
        self.set_false_alarms(false_alarms)

    def set_false_alarms(self, false_alarms: str) -> None:
        """Set the alarm threshold for a rate such as `0.1%` or `1/week`; HarkenError for no such rate."""
        self.false_alarms = false_alarms
        self.rate = parse_rate(false_alarms, float(np.median(self.training.seconds_N)))
        self.threshold = self.calibration.threshold(self.rate)

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
        false_alarms: str = "1/week",
        states: str | None = None,
        order: OrderChoice = "auto",
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
        false_alarms: the rate that the threshold is set for, `1/week` or `0.1%`.
        states: regular expression whose first group (or match) in a file's name is its operating state, as
        `_(\\d+)rpm`; without it, DCASE names give domains, and states are looked for in other recordings.
        order: of recording, in which correlation in time is measured (`harken.data.chronology`): `auto`; `name`: the
        order given, folders by name; `time`: times in names, else of files; `none`: unknown.
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
            states=states,
            order=order,
            store=store,
            workers=workers,
            all_formats=all_formats,
            limits=limits,
            progress=progress,
        )
        return cls._of(fitted, false_alarms)

    @classmethod
    def _of(cls, fitted: Fitted, false_alarms: str) -> Detector:
        made = cls(
            fitted.spec,
            fitted.weights,
            fitted.detector,
            fitted.calibration,
            fitted.training,
            false_alarms,
            fitted.notes,
            fitted.block,
        )
        made.set_aside = list(fitted.set_aside)
        return made

    def save(self, path: str | Path, *, embed_weights: bool = False) -> None:
        """Write the bundle: a directory, whole or not at all. Same detector, same bytes.

        embed_weights: copy large weights of the catalogue too, which are else named and read from the cache.
        """
        fitted = Fitted(
            self.spec, self.weights, self.detector, self.calibration, self.training, self.notes, block=self.block
        )
        save_fitted(path, fitted, self.false_alarms, embed_weights=embed_weights)

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Read a bundle. Raises BundleError when it is missing, damaged or of a newer schema."""
        return cls._of(*load_fitted(path))

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
        row = self.nearest_normal(features.embedding) if nearest_N is None else int(self._order[nearest_N[0]])
        p_value = float(self.calibration.p_value(score))
        is_anomaly = score > self.threshold
        return Verdict(
            path=path,
            score=score,
            p_value=p_value,
            is_anomaly=is_anomaly,
            extrapolated=p_value < self.calibration.finest,
            explanation=self._explain(features, row, is_anomaly),
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

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return canonical_order(self.training.embeddings_ND)

    def nearest_normal(self, embedding_D: Float32) -> int:
        """Number of the training recording that is nearest, every dimension standardised."""
        mean_D, scale_D = self.training.scaling
        query_D = (embedding_D - mean_D) / scale_D
        return int(nearest(query_D[None], self.training.standardised_ND, 1)[1][0, 0])

    def _explain(self, features: ClipFeatures, row: int, is_anomaly: bool) -> Explanation:
        """row: of the training recording that is most alike: the one it was scored by, else the nearest."""
        return explain(
            sketch_db(features.sketch_BC),
            self._envelope,
            centres_hz_B=self.band_centres_hz,
            seconds=features.seconds,
            nearest=self.training.names[row],
            anomalous=is_anomaly,
        )

    @cached_property
    def _envelope(self) -> Envelope:
        return Envelope.of(self.training.sketches_NBC, aligned=self.spec.level == "normalised")

    @cached_property
    def band_centres_hz(self) -> Float32:
        """Centre frequencies of the bands of heat maps and sketches."""
        return sketch_bands(self.spec).centres_hz_M

    def held_out_alarms(self) -> dict[str, tuple[int, int]]:
        """For each training domain or state: how many held-out recordings would raise an alarm, of how many.

        Few target recordings say only roughly what to expect there, but more than the rate, which is about
        all recordings together.
        """
        of = np.asarray(self.training.domains)
        alarm = self.training.scores_N > self.threshold
        return {str(name): (int(alarm[of == name].sum()), int((of == name).sum())) for name in np.unique(of)}


def load(path: str | Path) -> Detector:
    """Read a model made by `Detector.save` or `harken fit`."""
    return Detector.load(path)

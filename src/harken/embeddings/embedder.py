"""One recording in, everything that is later needed of it out: embedding, sketch, level, defects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from harken.audio.channels import Microphones
from harken.audio.decode import DEFAULT_FORMATS, Limits
from harken.audio.health import Health
from harken.audio.listen import Level, Listening, Sound, Source, listen
from harken.audio.quality import Finding
from harken.audio.resample import resample
from harken.audio.shape import fit_length
from harken.core.errors import AudioError, HarkenError
from harken.core.json_text import json_text
from harken.core.later_fields import LaterFields
from harken.core.plugins import code_sha256, located_errors
from harken.core.threads import one_thread
from harken.embeddings.short_time import short_time_levels
from harken.embeddings.sketch import Sketch, make_sketch
from harken.embeddings.steady import steady_levels
from harken.encoders import create_encoder, encoder_class
from harken.encoders.base import Encoder, FrontEnd, Spectrogram
from harken.encoders.pooling import check_pooling, pool
from harken.encoders.spectral import Spectral
from harken.encoders.spectrogram_file import read_spectrogram

Float32 = NDArray[np.float32]

#: raised whenever the same recording and spec would give other numbers
EMBEDDING_VERSION = 1


class EmbeddingSpec(LaterFields, BaseModel):
    """Everything that decides an embedding, but for the recording and the weights' values.

    layer: of the encoder; several are joined by `+`, and their vectors stand one after the other.
    level, microphones: see `audio.listen.Listening`; vectors of several channels stand one after the other.
    sample_rate, channels: what recordings must have; a recording of another rate has other bands, not other
    machine sounds.
    Sketches are made of the same sound, so that explanations show what was judged.
    monitoring: as a machine in service is listened to, rather than a data set: a constant offset is taken off,
    recordings of higher rates are brought to `sample_rate`, and statistics of the sensor are kept (`audio.health`).
    mono: the mean of the chosen channels is listened to, and a recording with one channel is taken for the near
    microphone, as trainings do.
    code_sha256: of the file of a custom encoder.
    more: further embeddings of the same recording, whose vectors follow. For weights see `weights_of`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    later: ClassVar[tuple[str, ...]] = (
        "microphones",
        "code_sha256",
        "mono",
        "monitoring",
        "more",
    )

    encoder: str
    config: dict[str, Any] = {}
    layer: str
    pooling: str
    level: Level = "normalised"
    sample_rate: int
    channels: int
    weights_sha256: str | None = None
    microphones: Microphones = "all"
    mono: bool = False
    monitoring: bool = False
    code_sha256: str | None = None
    more: tuple[EmbeddingSpec, ...] = ()

    def fingerprint(self) -> str:
        """Hex digest that names embeddings made by this spec."""
        text = json_text({"version": EMBEDDING_VERSION, **self.model_dump()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def make_spec(
    encoder: str = "spectral",
    *,
    sample_rate: int,
    channels: int,
    config: Mapping[str, Any] | None = None,
    layer: str | None = None,
    pooling: str | None = None,
    level: Level = "normalised",
    microphones: Microphones = "all",
    monitoring: bool = False,
    weights: Mapping[str, np.ndarray] | None = None,
) -> EmbeddingSpec:
    """A spec with the encoder's own defaults filled in.

    sample_rate, channels: of the recordings. level, microphones, monitoring: see `EmbeddingSpec`. Encoders of any rate
    listen at it; others resample to theirs.
    Raises HarkenError for an unknown encoder, ValueError for an unknown layer or pooling.
    """
    arguments = dict(config or {})
    if encoder_class(encoder).any_rate:
        arguments.setdefault("sample_rate", sample_rate)
    built = create_encoder(encoder, arguments, weights)
    layer, pooling = layer or built.default_layer, pooling or built.default_pooling
    check_parts(built, encoder, layer, pooling)
    return EmbeddingSpec(
        encoder=encoder,
        config=built.config(),
        layer=layer,
        pooling=pooling,
        level=level,
        sample_rate=sample_rate,
        channels=channels,
        microphones=microphones,
        monitoring=monitoring,
        weights_sha256=weights_digest(weights) if weights is not None else None,
        code_sha256=code_sha256(encoder),
    )


def check_parts(built: Encoder, name: str, layer: str, pooling: str) -> None:
    """Raise ValueError for a layer that the encoder `name` has not, or a pooling of nothing that it gives."""
    for single in layer.split("+"):
        if single not in built.layers:
            raise ValueError(f"{name} has no layer {single!r}; there are {', '.join(built.layers)}")
    check_pooling(pooling, cls_tokens=built.cls_tokens)


def spec_as_recorded(
    encoder: Encoder, *, sample_rate: int, channels: int, microphones: Microphones, weights: Mapping[str, np.ndarray]
) -> EmbeddingSpec:
    """The spec of an encoder that listens as stages of the bench do: one channel, at the level as recorded."""
    return EmbeddingSpec(
        encoder=encoder.name,
        config=encoder.config(),
        layer=encoder.default_layer,
        pooling="mean",
        level="recorded",
        sample_rate=sample_rate,
        channels=channels,
        microphones=microphones,
        mono=True,
        weights_sha256=weights_digest(weights),
    )


def weights_of(weights: Mapping[str, np.ndarray] | None, number: int) -> dict[str, np.ndarray] | None:
    """Of an embedding's arrays, those of the embedding `more[number]`: named `<number>/<name>`; None without any."""
    prefix = f"{number}/"
    arrays = {name.removeprefix(prefix): array for name, array in (weights or {}).items() if name.startswith(prefix)}
    return arrays or None


def weights_digest(weights: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, types, shapes and values, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """What is kept of one recording.

    embedding: (D,) float32, the vectors of the channels that are listened to, one after the other.
    sketch_BC: (bands, columns) uint8, a coarse spectrogram averaged over the same channels, whatever the encoder: it is
        what explanations compare with.
    short_time_D, steady_B: float32, what the embedding hides, of the same bands: levels by which short events are found
        (`embeddings.short_time`), and those by which tones are (`embeddings.steady`).
    level_db: RMS level as recorded, dBFS. sha256: of the file's bytes. Of a spectrogram the sketch and these levels
        are empty and the level nan. health: of the channels that are listened to; None unless `monitoring`.
    """

    embedding: Float32
    sketch_BC: Sketch
    short_time_D: Float32
    steady_B: Float32
    level_db: float
    seconds: float
    sha256: str
    findings: tuple[Finding, ...]
    health: Health | None = None


def sketch_bands(spec: EmbeddingSpec) -> Spectral:
    """The bands of sketches, at the recordings' own rate; those of the encoder where it listens at that rate too."""
    if _encodes_sketch(spec):
        return Spectral(**spec.config)
    return Spectral(spec.sample_rate)


def listening_of(spec: EmbeddingSpec, limits: Limits, formats: frozenset[str]) -> Listening:
    """How recordings are listened to for these embeddings."""
    return Listening(
        recorded_rate=spec.sample_rate,
        recorded_channels=spec.channels,
        microphones=spec.microphones,
        single_as_near=spec.mono,
        mono=spec.mono,
        level=spec.level,
        offset="removed" if spec.monitoring else "kept",
        higher_rates="resampled" if spec.monitoring else "refused",
        limits=limits,
        formats=formats,
    )


def waveform(samples_CS: Float32, rate: int, encoder_rate: int, min_samples: int) -> Float32:
    """(channels, samples) at `rate` -> at the encoder's rate, repeated to its shortest waveform."""
    wave_CS = resample(samples_CS, rate, encoder_rate)
    if wave_CS.shape[1] < min_samples:
        wave_CS = fit_length(wave_CS, min_samples, short="tile")
    return wave_CS


def mean_log_mel(samples_CS: Float32, bands: Spectral) -> Float32:
    """(channels, samples) at the recordings' rate -> (frames, bands) in dB, averaged over channels."""
    if samples_CS.shape[1] < bands.min_samples:
        samples_CS = fit_length(samples_CS, bands.min_samples, short="tile")
    return _mean_over_channels([bands.log_mel(channel_S) for channel_S in samples_CS])


def kept_features(
    spec: EmbeddingSpec, sound: Sound, embedding: Float32, log_mel_TM: Float32, bands: Spectral
) -> ClipFeatures:
    """What is kept of a recording with this embedding."""
    sketch_BC = make_sketch(log_mel_TM)
    return ClipFeatures(
        embedding=embedding,
        sketch_BC=sketch_BC,
        short_time_D=short_time_levels(log_mel_TM, bands.hop / bands.sample_rate),
        steady_B=steady_levels(sketch_BC),
        level_db=sound.level_db,
        seconds=sound.seconds,
        sha256=sound.sha256,
        findings=sound.findings,
        health=sound.health if spec.monitoring else None,
    )


class Embedder:
    """A spec brought to life: `listen`, then `features` or `embed`. Not thread-safe: one per worker."""

    def __init__(
        self,
        spec: EmbeddingSpec,
        weights: Mapping[str, np.ndarray] | None = None,
        *,
        limits: Limits = Limits(),
        formats: frozenset[str] = DEFAULT_FORMATS,
    ) -> None:
        if spec.code_sha256 != code_sha256(spec.encoder):
            raise HarkenError(
                "is not what it was when the spec was made", file=spec.encoder, next_step="Begin again with the new one"
            )
        self.spec = spec
        self.listening = listening_of(spec, limits, formats)
        self.layers = tuple(spec.layer.split("+"))
        first = {name: array for name, array in (weights or {}).items() if "/" not in name} if spec.more else weights
        try:
            self.encoder: Encoder = create_encoder(spec.encoder, spec.config, first or None)
            check_parts(self.encoder, spec.encoder, spec.layer, spec.pooling)
        except ValueError as error:
            raise HarkenError(
                f"its encoder cannot be built: {error}", next_step="Correct its settings, or fit again"
            ) from error
        self.more = [
            Embedder(extra, weights_of(weights, number), limits=limits, formats=formats)
            for number, extra in enumerate(spec.more)
        ]
        #: whether the encoder's frames are the log-mel that sketches are made of
        self.encodes_sketch = _encodes_sketch(spec)
        self.bands = self.encoder if isinstance(self.encoder, Spectral) and self.encodes_sketch else sketch_bands(spec)

    def limited(self, limits: Limits, formats: frozenset[str]) -> Embedder:
        """This embedder for recordings of other limits and formats; it shares the encoder."""
        limited = copy(self)
        limited.listening = self.listening.model_copy(update={"limits": limits, "formats": formats})
        limited.more = [embedder.limited(limits, formats) for embedder in self.more]
        return limited

    def listen(self, source: Source, *, sample_rate: int | None = None, name: str | Path | None = None) -> Sound:
        """A recording as the spec wants it, at the spec's rate. Raises AudioError for what cannot be used."""
        return listen(source, self.listening, sample_rate=sample_rate, name=name)

    def waveform(self, samples_CS: Float32) -> Float32:
        """(channels, samples) at the spec's rate -> at the encoder's rate, repeated to its shortest waveform."""
        return waveform(samples_CS, self.spec.sample_rate, self.encoder.sample_rate, self.encoder.min_samples)

    def encode(self, wave_CS: Float32) -> list[Float32]:
        """What `waveform` gives -> frames (T, D) of each layer of each channel, channel by channel."""
        frames = []
        # One channel and one clip per call: matrix kernels depend on the batch's shape, and the same
        # recording must give the same bits whatever it is scored together with.
        with located_errors(self.spec.encoder):
            for channel in range(len(wave_CS)):
                encoded = self.encoder.encode(wave_CS[channel : channel + 1], layers=self.layers)
                frames += list(encoded.features_BLTD[0, :, : int(encoded.lengths_B[0])])
        return frames

    def encode_spectrogram(self, spectrogram: Spectrogram) -> list[Float32]:
        """As `encode`, of a spectrogram that stands for one channel. Raises ValueError as the encoder's."""
        with located_errors(self.spec.encoder):
            encoded = self.encoder.encode_spectrogram([spectrogram], layers=self.layers)
        return list(encoded.features_BLTD[0, :, : int(encoded.lengths_B[0])])

    def pool(self, frames: Sequence[Float32]) -> Float32:
        """What `encode` gives -> (D,) float32, the pooled vectors one after the other."""
        encoder = self.encoder
        with located_errors(self.spec.encoder):
            return np.concatenate(
                [
                    pool(frames_TD, self.spec.pooling, cls_tokens=encoder.cls_tokens, patch_bands=encoder.patch_bands)
                    for frames_TD in frames
                ]
            )

    def embed(self, samples_CS: Float32) -> Float32:
        """(channels, samples) of a `Sound` at the spec's rate -> (D,) float32."""
        return self.pool(self.encode(self.waveform(samples_CS)))

    def embed_waveforms(self, waves: Sequence[Float32]) -> list[Float32]:
        """`embed` of several recordings."""
        return [self.embed(samples_CS) for samples_CS in waves]

    def log_mel(self, samples_CS: Float32) -> Float32:
        """(frames, bands) in dB of the sound that is listened to, averaged over channels."""
        return mean_log_mel(samples_CS, self.bands)

    def features(self, sound: Sound) -> ClipFeatures:
        """What is kept of a recording. Raises AudioError for an embedding that is not finite."""
        with one_thread():
            frames = self.encode(self.waveform(sound.wave_CS))
            embedding = self.pool(frames)
            log_mel_TM = _mean_over_channels(frames) if self.encodes_sketch else self.log_mel(sound.wave_CS)
        check_finite(embedding, sound.name)
        return kept_features(self.spec, sound, embedding, log_mel_TM, self.bands)

    def analyse(
        self, source: Source, name: str | Path | None = None, *, sample_rate: int | None = None
    ) -> ClipFeatures:
        """A path, the bytes of a file or samples -> `ClipFeatures`. Raises AudioError for what cannot be used."""
        # Cancellation, too, is linear algebra.
        with one_thread():
            sound = self.listen(source, sample_rate=sample_rate, name=name)
        features = self.features(sound)
        if not self.more:
            return features
        vectors, sounds = [features.embedding], {self.listening: sound}
        with one_thread():
            for embedder in self.more:
                # Decoded and levelled once for all that listen alike.
                if embedder.listening not in sounds:
                    sounds[embedder.listening] = embedder.listen(source, sample_rate=sample_rate, name=name)
                vectors.append(embedder.embed(sounds[embedder.listening].wave_CS))
        embedding = np.concatenate(vectors)
        check_finite(embedding, sound.name)
        return replace(features, embedding=embedding)

    def analyse_spectrogram(self, data: bytes, name: str | Path) -> ClipFeatures:
        """The bytes of a file of `write_spectrogram` -> `ClipFeatures`, without a sketch.

        Raises AudioError for what cannot be used, and for spectrograms of another front end than the encoder's.
        """
        front_end, spectrogram = read_spectrogram(data, name)
        check_front_end(self.spec, self.encoder, front_end, name)
        longest = self.listening.limits.seconds
        if spectrogram.samples > longest * front_end.sample_rate:
            raise AudioError(f"is of a clip longer than {longest:g} s", file=name, next_step="Make shorter ones")
        with one_thread():
            try:
                embedding = self.pool(self.encode_spectrogram(spectrogram))
            except ValueError as error:
                raise AudioError(str(error), file=name, next_step="Make it again") from error
        check_finite(embedding, name)
        return ClipFeatures(
            embedding=embedding,
            sketch_BC=np.zeros((0, 0), dtype=np.uint8),
            short_time_D=np.zeros(0, dtype=np.float32),
            steady_B=np.zeros(0, dtype=np.float32),
            level_db=float("nan"),
            seconds=spectrogram.samples / front_end.sample_rate,
            sha256=hashlib.sha256(data).hexdigest(),
            findings=(),
        )


def check_front_end(spec: EmbeddingSpec, encoder: Encoder, front_end: FrontEnd, name: str | Path) -> None:
    """Raise AudioError, about `name`, unless spectrograms of this front end can replace recordings of the spec."""
    step = "Make it for this encoder, or leave the stage that makes it out of from"
    if not encoder.takes_spectrograms:
        raise AudioError(f"is a spectrogram, and {spec.encoder} takes none", file=name, next_step=step)
    if encoder.front_end() != front_end:
        cause = f"is a spectrogram of the front end of {front_end}, not of {encoder.front_end()}"
        raise AudioError(cause, file=name, next_step=step)
    if spec.channels > 1 and spec.microphones == "all":
        cause = f"is a spectrogram of one channel, and {spec.channels} are listened to"
        raise AudioError(cause, file=name, next_step="Listen to one of the microphones")


def check_finite(embedding_D: Float32, name: str | Path) -> None:
    """Raise AudioError, about `name`, for an embedding that is not finite."""
    if not np.isfinite(embedding_D).all():
        raise AudioError(
            "gives an embedding that is not finite", file=name, next_step="Remove it, and verify the weights"
        )


def _encodes_sketch(spec: EmbeddingSpec) -> bool:
    return spec.encoder == Spectral.name and spec.config.get("sample_rate") == spec.sample_rate


def _mean_over_channels(frames: Sequence[Float32]) -> Float32:
    return np.mean(frames, axis=0, dtype=np.float32)

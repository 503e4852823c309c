"""One recording in, everything that is later needed of it out: embedding, sketch, level, defects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from harken.audio.cancel import Microphones, listen
from harken.audio.decode import DEFAULT_FORMATS, Audio, Limits, decode
from harken.audio.quality import Finding, inspect, level_dbfs
from harken.audio.resample import resample
from harken.audio.shape import fit_length
from harken.core.errors import AudioError, HarkenError
from harken.core.plugins import blamed, code_sha256
from harken.core.threads import one_thread
from harken.embeddings.sketch import Sketch, make_sketch
from harken.encoders import create_encoder, encoder_class
from harken.encoders.base import Encoder
from harken.encoders.pooling import check_pooling, pool
from harken.encoders.spectral import Spectral

Float32 = NDArray[np.float32]

#: RMS level that `normalised` recordings are brought to, in dBFS
NORMAL_LEVEL_DBFS = -20.0
#: raised whenever the same recording and spec would give other numbers
EMBEDDING_VERSION = 1
#: residual of a cancellation relative to the near microphone, in dB, below which nothing of a machine is in it
SAME_SOUND_DB = -50.0


class EmbeddingSpec(BaseModel):
    """Everything that decides an embedding, but for the recording and the weights' values.

    layer: of the encoder; several are joined by `+`, and their vectors stand one after the other.
    level: `normalised` brings each recording to one RMS level first, since loudness follows the microphone's
    distance and gain more than the machine's health; `recorded` keeps it.
    sample_rate, channels: what recordings must have; a recording of another rate has other bands, not other
    machine sounds.
    microphones: which of the channels are listened to: `all`, one after the other; `near`, the first, or `far`, the
    second of two; `cancelled` and `subtracted`, the near one less the noise that the far one hears (`audio.cancel`).
    Sketches are made of the same sound, so that explanations show what was judged.
    code_sha256: of the file of an encoder of one's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str
    config: dict[str, Any] = {}
    layer: str
    pooling: str
    level: Literal["normalised", "recorded"] = "normalised"
    sample_rate: int
    channels: int
    weights_sha256: str | None = None
    microphones: Microphones = "all"
    code_sha256: str | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out where it changes nothing: fingerprints and bundles made before it was there stay as they were.
        fields: dict[str, Any] = handler(self)
        if self.microphones == "all":
            del fields["microphones"]
        if self.code_sha256 is None:
            del fields["code_sha256"]
        return fields

    def fingerprint(self) -> str:
        """Hex digest that names embeddings made by this spec."""
        text = json.dumps({"version": EMBEDDING_VERSION, **self.model_dump()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def make_spec(
    encoder: str = "spectral",
    *,
    sample_rate: int,
    channels: int,
    config: Mapping[str, Any] | None = None,
    layer: str | None = None,
    pooling: str | None = None,
    level: Literal["normalised", "recorded"] = "normalised",
    microphones: Microphones = "all",
    weights: Mapping[str, np.ndarray] | None = None,
) -> EmbeddingSpec:
    """A spec with the encoder's own defaults filled in.

    sample_rate, channels: of the recordings. `spectral` works at that rate; other encoders resample to theirs.
    Raises HarkenError for an unknown encoder, ValueError for an unknown layer or pooling.
    """
    arguments = dict(config or {})
    if encoder == Spectral.name:
        arguments.setdefault("sample_rate", sample_rate)
    built = create_encoder(encoder, arguments, weights)
    layer = layer or built.default_layer
    for part in layer.split("+"):
        if part not in built.layers:
            raise ValueError(f"{encoder} has no layer {part!r}; there are {', '.join(built.layers)}")
    pooling = pooling or type(built).default_pooling
    check_pooling(pooling)
    return EmbeddingSpec(
        encoder=encoder,
        config=built.config(),
        layer=layer,
        pooling=pooling,
        level=level,
        sample_rate=sample_rate,
        channels=channels,
        microphones=microphones,
        weights_sha256=weights_digest(weights) if weights is not None else None,
        code_sha256=code_sha256(encoder),
    )


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
    level_db: RMS level as recorded, dBFS. sha256: of the file's bytes.
    """

    embedding: Float32
    sketch_BC: Sketch
    level_db: float
    seconds: float
    sha256: str
    findings: tuple[Finding, ...]


def sketch_bands(spec: EmbeddingSpec) -> Spectral:
    """The bands of sketches, at the recordings' own rate; those of the encoder where it listens at that rate too."""
    if spec.encoder == Spectral.name and spec.config.get("sample_rate") == spec.sample_rate:
        return Spectral(**spec.config)
    return Spectral(spec.sample_rate)


class Embedder:
    """A spec brought to life. Not thread-safe: one a worker."""

    def __init__(
        self,
        spec: EmbeddingSpec,
        weights: Mapping[str, np.ndarray] | None = None,
        *,
        limits: Limits = Limits(),
        formats: frozenset[str] = DEFAULT_FORMATS,
    ) -> None:
        self.spec = spec
        self.limits = limits
        self.formats = formats
        if spec.code_sha256 != code_sha256(spec.encoder):
            raise HarkenError(
                "is not what it was when the spec was made", file=spec.encoder, next_step="Begin again with the new one"
            )
        if encoder_class(spec.encoder).needs_weights:
            _one_torch_thread()
        self.encoder: Encoder = create_encoder(spec.encoder, spec.config, weights)
        self.bands = sketch_bands(spec)

    def decode(self, data: bytes, name: str | Path) -> Audio:
        """Decode a recording and check that it is of the rate and channel count that the spec expects."""
        audio = decode(data, name=name, limits=self.limits, formats=self.formats)
        if audio.sample_rate != self.spec.sample_rate:
            raise AudioError(
                f"was recorded at {audio.sample_rate} Hz, the model listens at {self.spec.sample_rate} Hz",
                file=name,
                next_step=f"Record at {self.spec.sample_rate} Hz, or fit a model on recordings of this rate",
            )
        channels = len(audio.samples_CT)
        if channels != self.spec.channels:
            raise AudioError(
                f"has {channels} channel{'s' * (channels != 1)}, the model listens to {self.spec.channels}",
                file=name,
                next_step="Use the same microphones as for the normal recordings",
            )
        return audio

    def heard(self, samples_CT: Float32, name: str | Path) -> Float32:
        """The channels that the spec listens to, (channels, samples) float32, before levelling.

        Raises AudioError where a second microphone is needed and missing, or has recorded what the first has.
        """
        microphones = self.spec.microphones
        try:
            heard_CT = listen(samples_CT, self.spec.sample_rate, microphones)
        except ValueError:
            channels = len(samples_CT)
            raise AudioError(
                f"has {channels} channel{'s' * (channels != 1)}; {microphones!r} needs two, near and far",
                file=name,
                next_step="Record with two microphones, or listen to all or the near one",
            ) from None
        if microphones in ("cancelled", "subtracted"):
            left_db = level_dbfs(heard_CT) - level_dbfs(samples_CT[:1])
            if left_db < SAME_SOUND_DB:
                raise AudioError(
                    "has the same sound in both channels: nothing is left when one is taken from the other",
                    file=name,
                    next_step="Check that the far microphone is connected, or listen to the near one",
                )
        return heard_CT

    def levelled(self, samples_CT: Float32) -> Float32:
        """Samples as the encoder gets them: at one level if the spec says so; one gain for all channels."""
        if self.spec.level == "recorded":
            return samples_CT
        gain = 10 ** ((NORMAL_LEVEL_DBFS - level_dbfs(samples_CT)) / 20)
        return samples_CT * np.float32(gain)

    def embed(self, samples_CT: Float32) -> Float32:
        """(channels, samples) at the spec's rate, already levelled -> (D,) float32."""
        wave_CT = resample(samples_CT, self.spec.sample_rate, self.encoder.sample_rate)
        if wave_CT.shape[1] < self.encoder.min_samples:
            wave_CT = fit_length(wave_CT, self.encoder.min_samples, short="tile")
        vectors = []
        # One channel and one clip a call: matrix kernels depend on the batch's shape, and the same
        # recording must give the same bits whatever it is scored together with.
        kind = type(self.encoder)
        with blamed(self.spec.encoder):
            for channel in range(len(wave_CT)):
                found = self.encoder.encode(wave_CT[channel : channel + 1], layers=tuple(self.spec.layer.split("+")))
                for frames_TD in found.features_BLTD[0, :, : int(found.lengths_B[0])]:
                    vectors.append(
                        pool(frames_TD, self.spec.pooling, cls_tokens=kind.cls_tokens, patch_bands=kind.patch_bands)
                    )
        return np.concatenate(vectors)

    def log_mel(self, samples_CT: Float32) -> Float32:
        """(frames, bands) in dB of levelled samples, averaged over channels."""
        if samples_CT.shape[1] < self.bands.min_samples:
            samples_CT = fit_length(samples_CT, self.bands.min_samples, short="tile")
        return np.mean([self.bands.log_mel(channel) for channel in samples_CT], axis=0, dtype=np.float32)

    def analyse(self, data: bytes, name: str | Path) -> ClipFeatures:
        """Bytes of a file -> `ClipFeatures`. Raises AudioError for what cannot be used."""
        audio = self.decode(data, name)
        # A microphone that is not listened to may be broken.
        alone = {"near": slice(0, 1), "far": slice(1, 2)}.get(self.spec.microphones, slice(None))
        findings = inspect(audio.samples_CT[alone], audio.sample_rate)
        for finding in findings:
            if finding.unusable:
                raise AudioError(finding.detail, file=name, next_step=finding.next_step)
        with one_thread():
            samples_CT = self.levelled(self.heard(audio.samples_CT, name))
            embedding = self.embed(samples_CT)
            log_mel_TM = self.log_mel(samples_CT)
        if not np.isfinite(embedding).all():
            raise AudioError(
                "gives an embedding that is not finite",
                file=name,
                next_step="Remove it, and verify the weights",
            )
        return ClipFeatures(
            embedding=embedding,
            sketch_BC=make_sketch(log_mel_TM),
            level_db=level_dbfs(audio.samples_CT),
            seconds=audio.seconds,
            sha256=hashlib.sha256(data).hexdigest(),
            findings=tuple(findings),
        )


def _one_torch_thread() -> None:
    """Sums split over threads differ in their last bit; workers are the parallelism."""
    import torch

    torch.set_num_threads(1)

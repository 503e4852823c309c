"""embed: one vector a recording, from a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from harken.audio.channels import Microphones
from harken.bench import estimate
from harken.bench.costs import Cost, PlannedStage, embedding_cost, front_end_cost
from harken.bench.stages.base import Context, Input, Settings, Stage
from harken.bench.stages.pretrained import encoder_file, planned_student
from harken.bench.stages.tables import Quarantined, write_embeddings
from harken.core.errors import AudioError, HarkenError, reading, settings_of
from harken.core.json_text import json_text
from harken.core.plugins import check_name, code_identity, is_custom
from harken.data.clips import Clip
from harken.embeddings.embedder import EmbeddingSpec, check_front_end, make_spec, weights_digest
from harken.embeddings.extract import extract
from harken.embeddings.forms import probe
from harken.embeddings.isolated import Extracted
from harken.encoders import create_encoder, encoder_class, list_encoders, tiny_config
from harken.encoders.accelerator import default_device
from harken.encoders.checkpoints import weights_for
from harken.encoders.pooling import check_pooling
from harken.encoders.spectrogram_file import read_front_end
from harken.training.model_spec import PRETRAINED
from harken.weights.catalog import catalog
from harken.weights.formats import from_safetensors


class EmbedStage(Stage):
    """`embeddings.safetensors`: (clips, dimensions) float32; `clips.json`: which clips, and those set aside.

    Clips that are spectrograms enter the encoder behind its front end, which must be the one they were made for.
    """

    makes = "embeddings"
    inputs: ClassVar = {"clips": Input("clips", optional=True, many=True), "encoder": Input("encoder", optional=True)}
    spread = True
    listens = True
    shards = True
    accelerated = True
    payloads: ClassVar = ("sound", "spectrogram")

    class Parameters(Settings):
        """encoder, config, layer, pooling, level, microphones: see `EmbeddingSpec`; None is the encoder's own choice.
        An encoder of one's own is `file.py:Class` or `package.module:Class`; its weights are a file of safetensors.

        weights: a name of `harken weights list` or a file; None is the catalogue's first; `pretrained` those of the
        pretrain stage that it reads. size: `tiny` is a small
        network of the same architecture with random weights, which shows that everything runs, and nothing else.

        device: auto is a GPU where the run begins on a machine with one, and the encoder is a network. precision: of
        the network; tf32 and bf16 are faster on GPUs, and give slightly different embeddings. On a GPU, recordings of
        equal length pass together.
        """

        encoder: str = "spectral"
        config: dict[str, Any] = Field(default_factory=dict)
        weights: str | None = None
        size: Literal["full", "tiny"] = "full"
        layer: str | None = None
        pooling: str | None = None
        level: Literal["normalised", "recorded"] = "normalised"
        microphones: Microphones = "all"
        device: Literal["auto", "cpu", "cuda"] = "auto"
        precision: Literal["fp32", "tf32", "bf16"] = "fp32"

        @field_validator("pooling")
        @classmethod
        def _pooling_is_known(cls, pooling: str | None) -> str | None:
            if pooling is not None:
                check_pooling(pooling)
            return pooling

        @field_validator("encoder")
        @classmethod
        def _known(cls, encoder: str) -> str:
            check_name("encoder", encoder, list_encoders())
            return encoder

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        weights = None if parameters.weights == PRETRAINED else _network(parameters)[1]
        # Keys of objects from a CPU in fp32 do not contain device and precision, as before these were settings.
        unchanged = {"device"} if parameters.device != "cuda" else set()
        unchanged |= {"precision"} if parameters.precision == "fp32" else set()
        identity: dict[str, Any] = {"parameters": parameters.model_dump(mode="json", exclude=unchanged)}
        if parameters.encoder == "beats" and "patches" in (parameters.layer or ""):
            # Since this layer is what enters the first block, as of the other encoders.
            identity["layer_version"] = 2
        if weights is not None:
            identity["weights_sha256"] = weights_digest(weights)
        return {**identity, **code_identity(parameters.encoder)}

    @classmethod
    def chosen_here(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The device, where it is left to the machine; only published networks leave the processor by themselves."""
        if parameters["device"] != "auto":
            return dict(parameters)
        network = _is_published(parameters["encoder"])
        return {**parameters, "device": default_device() if network else "cpu"}

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost:
        """Of one pass per clip and microphone; of encoders without a network, measured."""
        encoder = parameters.encoder
        if encoder not in ("spectral", "log_mel") and estimate.why_not() is not None:
            return Cost(details={"clips": planned.clip_count()})
        if not _is_published(encoder) and not encoder_class(encoder).needs_weights:
            return front_end_cost(planned, encoder, json_text(parameters.config))
        tiny, config, weights = parameters.size == "tiny", parameters.config, parameters.weights
        if weights == PRETRAINED:
            student = planned_student(planned, encoder)
            tiny, weights = student.get("size") == "tiny", student["weights"]
            config = {**student.get("config", {}), **config}
        counts = estimate.count_encoder(encoder, config, weights, tiny=tiny)
        every = parameters.microphones == "all"
        precision = None if parameters.device == "cpu" else parameters.precision
        return embedding_cost(planned, counts, lambda seconds: seconds / 10.0, all_channels=every, precision=precision)

    @classmethod
    def run_shard(cls, parameters: Any, context: Context, index: int, count: int) -> None:
        shard = context.clips[index::count]
        for row, _ in enumerate(_features(parameters, context, shard)):
            context.progress(row + 1, len(shard))

    @classmethod
    def run(cls, parameters: Any, context: Context) -> None:
        kept, vectors, aside = [], [], []
        results = _features(parameters, context, context.clips)
        for row, (clip, result) in enumerate(zip(context.clips, results, strict=True)):
            if result.features is None:
                aside.append(Quarantined(clip.clip_id, str(result.error)))
            else:
                kept.append(clip.clip_id)
                vectors.append(result.features.embedding)
            context.progress(row + 1, len(context.clips))
        write_embeddings(context.out, context.clips[0].machine, kept, vectors, aside)


def _features(parameters: Any, context: Context, clips: Sequence[Clip]) -> Iterator[Extracted]:
    """Of some of the machine's clips; they are kept in the store."""
    spec, weights = embedding_of(parameters, context.clips, context.workers, context.folders("encoder"))
    made = [clip for clip in clips if clip.payload == "spectrogram"]
    if made:
        _check_front_ends(made, spec, weights)
    paths = [clip.path for clip in clips]
    spectrograms = [clip.path for clip in made]
    device = "cpu" if parameters.device == "auto" else parameters.device
    if device != "cpu" or parameters.precision != "fp32":
        from harken.embeddings.batches import extract_batched

        return extract_batched(
            paths, spec, weights, device=device, precision=parameters.precision, store=context.store,
            workers=context.workers, spectrograms=spectrograms,
        )  # fmt: skip
    return extract(paths, spec, weights, store=context.store, workers=context.workers, spectrograms=spectrograms)


def _check_front_ends(clips: Sequence[Clip], spec: EmbeddingSpec, weights: Mapping[str, np.ndarray] | None) -> None:
    """Raise HarkenError where spectrograms are not of the encoder's front end: the recipe is at fault, not the clip."""
    encoder = create_encoder(spec.encoder, spec.config, weights)
    for clip in clips:
        try:
            front_end, _ = read_front_end(clip.path)
        except AudioError:
            continue  # set aside when it is read
        try:
            check_front_end(spec, encoder, front_end, clip.clip_id)
        except AudioError as error:
            raise HarkenError(error.cause, file=error.file, next_step=error.next_step) from error


def embedding_of(
    parameters: Any, clips: Sequence[Clip], workers: int | None, encoders: Sequence[Path] = ()
) -> tuple[EmbeddingSpec, Mapping[str, np.ndarray] | None]:
    """How a stage with these parameters makes embeddings of a machine's clips, and the weights for it.

    encoders: folders of the pretrain stages that it reads.
    """
    if (parameters.weights == PRETRAINED) != bool(encoders):
        raise HarkenError(
            f"weights: {PRETRAINED} and a pretrain stage that is read go together",
            next_step="Name the stage under from, or other weights",
        )
    config, weights = _network(parameters, encoders)
    rate, channels = form_of(clips, workers)
    with settings_of(parameters.encoder, "Correct config, layer or pooling of the embed stage"):
        spec = make_spec(
            parameters.encoder,
            sample_rate=rate,
            channels=channels,
            config=config,
            layer=parameters.layer,
            pooling=parameters.pooling,
            level=parameters.level,
            microphones=parameters.microphones,
            weights=weights,
        )
    return spec, weights


def _is_published(encoder: str) -> bool:
    """Whether there are weights of an encoder in the catalogue; known without torch, as its class is not."""
    return any(entry.encoder == encoder for entry in catalog())


def _network(parameters: Any, encoders: Sequence[Path] = ()) -> tuple[dict[str, Any], Mapping[str, np.ndarray] | None]:
    """Configuration and weights of the encoder; no weights where it needs none."""
    if parameters.weights == PRETRAINED:
        config, weights = weights_for(parameters.encoder, encoder_file(encoders, parameters.encoder))
        return {**config, **parameters.config}, weights
    if not _is_published(parameters.encoder) and not encoder_class(parameters.encoder).needs_weights:
        return dict(parameters.config), None
    if parameters.size == "tiny":
        # Architectures without a small variant are small themselves.
        small = {**tiny_config(parameters.encoder), **parameters.config, "seed": 0}
        built = create_encoder(parameters.encoder, small)
        return built.config(), built.weights()
    if is_custom(parameters.encoder):
        return dict(parameters.config), _own_weights(parameters)
    config, weights = weights_for(parameters.encoder, parameters.weights)
    return {**config, **parameters.config}, weights


def _own_weights(parameters: Any) -> Mapping[str, np.ndarray]:
    """Of an encoder that the catalogue does not know. Raises HarkenError where the file is missing or damaged."""
    if parameters.weights is None:
        raise HarkenError(f"{parameters.encoder} needs weights", next_step="Name a file of safetensors under weights")
    file = Path(parameters.weights)
    with reading(file, errors=()):
        return from_safetensors(file.read_bytes(), file)


def recording_form(context: Context) -> tuple[int, int]:
    """See `form_of`."""
    return form_of(context.clips, context.workers)


def form_of(clips: Sequence[Clip], workers: int | None) -> tuple[int, int]:
    """Most frequent sampling rate and channel count among recordings spread over all."""
    clips = [clip for clip in clips if clip.payload == "sound"]
    count = len(clips)
    chosen = np.unique(np.linspace(0, count - 1, min(25, count)).astype(int))
    forms = [form for form in probe([clips[i].path for i in chosen], workers=workers) if form]
    return max(sorted(set(forms)), key=forms.count) if forms else (16_000, 1)

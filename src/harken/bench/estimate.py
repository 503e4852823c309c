"""Estimates of networks: operations and memory, and seconds of encoders that are measured instead of counted.

Networks are counted (`counting`), not run; `devices` says how long a device takes for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from harken.bench.devices import Device, fastest
from harken.bench.kept_counts import kept_counts
from harken.bench.work import Counts, Work
from harken.core.errors import HarkenError, settings_of
from harken.encoders import create_encoder, encoder_class, tiny_config
from harken.encoders.base import Encoder
from harken.generation.diffusion_settings import DiffusionConfig, FrontEndSpec
from harken.generation.xception_settings import XceptionConfig
from harken.separation.config import SepReformerConfig
from harken.training.model_spec import BranchSpec, ModelSpec
from harken.training.pretrain.settings import PretrainingSpec, StudentSpec
from harken.training.settings import TrainingSpec
from harken.weights.cache import cached
from harken.weights.catalog import catalog

#: memory that a step takes of a CPU's allocator for what is alive of it, gradients aside: freed pieces between others
#: stay; fitted to `benchmarks/full_steps.py` and to steps of eight clips
CPU_ALLOCATOR = 1.35
#: clips that pass a frozen network together on an accelerator, as `TorchEncoder` has it
EMBEDDED_TOGETHER = 32
#: how often a state is in memory while it is written, beside the network and its moments
SAVE_COPIES = 3.0


def why_not() -> str | None:
    """What to install for estimates; None if nothing is missing."""
    return None if find_spec("torch") else "estimates need torch: pip install 'harken[torch]'"


# ------------------------------------------------------------ architectures


def published_config(encoder: str, weights: str) -> dict[str, Any]:
    """Arguments of the architecture that named weights are of, whether they are here or not; those of the encoder's
    class where nothing is known of them."""
    from harken.encoders import checkpoints

    for record in cached():
        if record.name == weights and record.encoder == encoder:
            return dict(record.config)
    for entry in catalog():
        if entry.name == weights:
            return dict(entry.config or encoder_class(entry.encoder).sizes.get(weights, {}))
    try:
        loaded = checkpoints.load(weights)
    except HarkenError:
        return {}
    return dict(loaded.config) if loaded.encoder == encoder else {}


def without_weights(model: ModelSpec) -> ModelSpec:
    """The same architecture with random weights of one seed."""
    branches = tuple(_without_weights(branch) for branch in model.branches)
    return model.model_copy(update={"branches": branches, "seed": 0})


def _without_weights(branch: BranchSpec) -> BranchSpec:
    if branch.weights is None:
        return branch
    config = {**published_config(branch.encoder, branch.weights), **branch.config}
    config.pop("seed", None)
    return branch.model_copy(update={"weights": None, "config": config})


# ------------------------------------------------------------ counting


def count_training(model: ModelSpec, training: TrainingSpec, classes: int, attribute_free: tuple[int, ...]) -> Counts:
    """See `counting.count_training`; named weights are not needed. Equal questions are answered from the user's cache.

    Raises HarkenError for models that cannot be built, and ModuleNotFoundError without torch.
    """

    def count() -> Counts:
        from harken.bench import counting

        return counting.count_training(without_weights(model), training, classes, attribute_free)

    shaping = {"batch", "seconds", "recompute", "precision", "losses", "augmentation"}
    question = {
        "model": model.model_copy(update={"seed": 0}).model_dump(mode="json"),
        "training": training.model_dump(mode="json", include=shaping),
        "accumulated": training.accumulation > 1,
        "classes": classes,
        "attribute_free": attribute_free,
    }
    return _counted(question, [branch.weights for branch in model.branches], count)


def count_encoder(encoder: str, config: Mapping[str, Any], weights: str | None = None, *, tiny: bool = False) -> Counts:
    """Of a clip of 10 s through a frozen encoder. Equal questions are answered from the user's cache.

    config: what is set of it. weights: of which published architecture; default: the catalogue's first. tiny: of its
    small network instead. Raises HarkenError where it cannot be built without its weights.
    """
    name = weights or next((entry.name for entry in catalog() if entry.encoder == encoder), "")

    def count() -> Counts:
        from harken.bench import counting

        architecture = tiny_config(encoder) if tiny else published_config(encoder, name)
        architecture.pop("seed", None)
        return counting.count_encoder(encoder, {**architecture, **config})

    question = {"encoder": encoder, "config": dict(config), "tiny": tiny, "weights": name}
    return _counted(question, [name or None], count)


def count_pretraining(student: StudentSpec, spec: PretrainingSpec) -> Counts:
    """See `counting.count_pretraining`; named weights are not needed. Equal questions are answered from the user's
    cache. Raises HarkenError for settings that do not fit."""

    def count() -> Counts:
        from harken.bench import counting

        config = dict(encoder_class(student.encoder).sizes.get(student.size, {}))
        if student.weights is not None:
            config = published_config(student.encoder, student.weights)
        config.pop("seed", None)
        return counting.count_pretraining(student.encoder, {**config, **student.config}, spec)

    shaping = {"batch", "seconds", "recompute", "precision", "clones", "masked", "decoder"}
    question = {
        "student": student.model_dump(mode="json"),
        "pretraining": spec.model_dump(mode="json", include=shaping),
        "accumulated": spec.accumulation > 1,
    }
    return _counted(question, [student.weights], count)


@lru_cache(maxsize=8)
def autoencoder_step(inputs: int, batch: int) -> Work:
    """One step of the optimiser on the network of the DCASE baseline. inputs: numbers per vector."""

    def count() -> Counts:
        from harken.bench import counting

        return counting.count_autoencoder(inputs, batch)

    counts = kept_counts({"autoencoder": inputs, "batch": batch}, count)
    return counts.batch + Work(0, 0, counts.trainable)


@lru_cache(maxsize=64)
def count_separator(config: SepReformerConfig, seconds: float, batch: int) -> Counts:
    """Of a separator: a training's batch, and one recording, of so many seconds."""

    def count() -> Counts:
        from harken.bench import counting

        return counting.count_separator(config, seconds, batch)

    return kept_counts({"separator": config.model_dump(mode="json"), "seconds": seconds, "batch": batch}, count)


def _spectrogram_shape(front_end: FrontEndSpec, seconds: float) -> tuple[int, int]:
    """(frames, bins) of a clip."""
    from harken.generation.front_end import SpectrogramFrontEnd

    frames, bins = SpectrogramFrontEnd(front_end, seconds).form.shape
    return frames, bins


def _of_front_end(front_end: FrontEndSpec, seconds: float) -> dict[str, Any]:
    """What `_spectrogram_shape` depends on: building the front end takes torch."""
    return {"front_end": front_end.model_dump(mode="json"), "seconds": seconds}


def count_diffusion(config: DiffusionConfig, front_end: FrontEndSpec, seconds: float, batch: int) -> Counts:
    """Of a small diffusion model: a training's batch, and one pass of one clip, of so many seconds."""

    def count() -> Counts:
        from harken.bench import counting_generation

        return counting_generation.count_diffusion(config, _spectrogram_shape(front_end, seconds), batch)

    question = {"diffusion": config.model_dump(mode="json"), **_of_front_end(front_end, seconds), "batch": batch}
    return kept_counts(question, count)


def count_xception(config: XceptionConfig, classes: int, front_end: FrontEndSpec, seconds: float, batch: int) -> Counts:
    """Of an Xception: a training's batch, and one clip, of so many seconds."""

    def count() -> Counts:
        from harken.bench import counting_generation

        return counting_generation.count_xception(config, classes, _spectrogram_shape(front_end, seconds), batch)

    network = {"xception": config.model_dump(mode="json"), "classes": classes, "batch": batch}
    return kept_counts({**network, **_of_front_end(front_end, seconds)}, count)


def _counted(question: dict[str, Any], weights: Sequence[str | None], count: Callable[[], Counts]) -> Counts:
    """From the cache or counted; weights: those named in the question."""
    named = set(weights) - {None}
    records = {record.name: record.model_dump(mode="json") for record in cached() if record.name in named}
    if named <= {*records, *(entry.name for entry in catalog())}:
        return kept_counts({**question, "cached_weights": records}, count)
    # A file may change.
    return count()


# ------------------------------------------------------------ memory and time


def training_memory_parts(
    counts: Counts, training: TrainingSpec | PretrainingSpec, processor: Device
) -> tuple[float, float]:
    """Bytes of a process on a CPU at the peak of a step, and while the state is written."""
    fixed = 4.0 * counts.parameters + 8.0 * counts.trainable
    saving = fixed + SAVE_COPIES * 12.0 * counts.trainable
    step = fixed + _step_bytes(counts, training, CPU_ALLOCATOR)
    return processor.runtime_bytes + step, processor.runtime_bytes + saving


def training_memory(counts: Counts, training: TrainingSpec | PretrainingSpec, device: Device) -> float:
    """Bytes at the peak; on a CPU writing the state may be it."""
    if device.name == "cpu":
        return max(training_memory_parts(counts, training, device))
    network = 4.0 * counts.parameters + 8.0 * counts.trainable + _step_bytes(counts, training, 1.0)
    return device.runtime_bytes + network


def _step_bytes(counts: Counts, training: TrainingSpec | PretrainingSpec, allocator: float) -> float:
    """Of a step beside weights and moments."""
    gradients = 4.0 * counts.trainable
    # With accumulation they are there before, and not part of what was counted.
    before = gradients if training.accumulation > 1 else 0.0
    inside = min(gradients - before, counts.live)
    return max(before + inside + allocator * (counts.live - inside), gradients)


def embedding_memory(counts: Counts, device: Device, clips: int = 1) -> float:
    """Bytes at the peak, of so many clips that pass together."""
    return device.runtime_bytes + 4.0 * counts.parameters + clips * counts.forward_live


def step_work(counts: Counts, training: TrainingSpec | PretrainingSpec) -> Work:
    """One step of the optimiser, with all its batches."""
    return counts.batch * training.accumulation + Work(0, 0, counts.trainable)


@lru_cache(maxsize=8)
def front_end_seconds(encoder: str, config: str) -> float:
    """Seconds that a clip of 10 s takes an encoder that is no network, measured on noise. config: as JSON."""
    import json

    from harken.core.threads import one_thread

    built = _built_encoder(encoder, json.loads(config))
    wave_BS = np.random.default_rng(0).normal(size=(1, 10 * built.sample_rate)).astype(np.float32)
    with one_thread():
        return fastest(lambda: built.encode(wave_BS), 0.05)


@lru_cache(maxsize=64)
def frame_shape(encoder: str, config: str, samples: int) -> tuple[int, int]:
    """Frames and numbers per frame that an encoder without a network makes of a clip. config: as JSON."""
    import json

    from harken.core.threads import one_thread

    built = _built_encoder(encoder, json.loads(config))
    with one_thread():
        features_BLTD = built.encode(np.zeros((1, samples), np.float32)).features_BLTD
    return features_BLTD.shape[2], features_BLTD.shape[3]


def _built_encoder(encoder: str, config: dict[str, Any]) -> Encoder:
    with settings_of(encoder, "Correct its config in the recipe"):
        return create_encoder(encoder, config)

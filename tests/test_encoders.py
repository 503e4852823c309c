"""What every registered encoder does (`harken.encoders.checks`), and more that every neural one does.

Small networks with random weights. What is an architecture's own is tested in a file of its own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import encoder_suite as suite
from encoder_suite import noise, official
from harken.core.errors import WeightsError
from harken.encoders import Embedding, Encoder, create_encoder, encoder_class, list_encoders, tiny_config
from harken.encoders.checks import CHECKS, Make, check_encoder
from harken.encoders.torch_encoder import TorchEncoder

#: the neural encoders, and how many tensors the small network of each has
TENSORS = {"beats": 68, "dasheng": 47, "dual_branch": 166, "eat": 41, "efficientat": 294, "fisher": 42, "yamnet": 110}
#: of which there are official files, and small ones of the reference implementations
OFFICIAL = ("beats", "dasheng", "eat", "fisher")
folder = suite.folder


@lru_cache
def small(name: str) -> Encoder:
    if not encoder_class(name).needs_weights:
        return create_encoder(name)
    return create_encoder(name, {**tiny_config(name), "seed": 0})


@pytest.fixture(scope="module", params=list_encoders())
def make(request: pytest.FixtureRequest) -> Make:
    encoder = small(request.param)
    return lambda: encoder


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_encoder_keeps_its_promises(make: Make, check: Callable[[Make], None]) -> None:
    check(make)


# -------------------------------------------------------------- neural encoders


@pytest.fixture(scope="module", params=TENSORS)
def neural(request: pytest.FixtureRequest) -> TorchEncoder:
    encoder = small(request.param)
    assert isinstance(encoder, TorchEncoder)
    return encoder


def test_all_neural_encoders_are_tested() -> None:
    assert list(TENSORS) == [name for name in list_encoders() if encoder_class(name).needs_weights]


def test_batch_and_padding_change_nothing(neural: TorchEncoder) -> None:
    """To the last bit, on a CPU."""
    lengths = np.array([max(10_000, neural.min_samples), 48_000, 33_333])
    wave = noise(3, 48_000)
    found = neural.encode(wave, lengths)
    for index, length in enumerate(lengths):
        alone = neural.encode(wave[index : index + 1, :length])
        frames = int(alone.lengths_B[0])
        assert found.lengths_B[index] == frames
        assert np.array_equal(found.features_BLTD[index, :, :frames], alone.features_BLTD[0])
        assert not found.features_BLTD[index, :, frames:].any()


def test_repeatable_and_seeded(neural: TorchEncoder) -> None:
    wave = noise(1, neural.sample_rate)
    state = torch.random.get_rng_state()
    assert neural.config()["seed"] == 0
    same, other = (type(neural)(**{**neural.config(), "seed": seed}) for seed in (0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    features = neural.encode(wave).features_BLTD
    assert np.array_equal(features, same.encode(wave).features_BLTD)
    assert not np.array_equal(features, other.encode(wave).features_BLTD)


def test_rebuilds_from_config_and_weights(neural: TorchEncoder) -> None:
    """That the same weights give the same features is one of the checks above; here, that all of them are kept."""
    # Nothing as it was drawn: no bias of zero, no norm's statistics of zero and one.
    rng = np.random.default_rng(0)
    weights = {
        name: (array + 0.05 * rng.random(array.shape, dtype=np.float32)).astype(array.dtype)
        for name, array in neural.weights().items()
    }
    rebuilt = create_encoder(neural.name, neural.config(), weights)
    assert rebuilt.config() == neural.config()
    assert {name: array.shape for name, array in weights.items()} == type(neural).tensor_shapes(**neural.config())
    assert rebuilt.weights().keys() == weights.keys()
    for name, array in rebuilt.weights().items():
        assert array.dtype == weights[name].dtype
        assert np.array_equal(array, weights[name]), name
    wave = noise(1, neural.sample_rate)
    assert not np.array_equal(rebuilt.encode(wave).features_BLTD, neural.encode(wave).features_BLTD)


def test_frames_of_every_layer(neural: TorchEncoder) -> None:
    samples = max(neural.min_samples, neural.sample_rate // 2)
    wave = noise(1, samples)
    for layer in neural.layers:
        found = neural.encode(wave, layers=(layer,))
        assert found.features_BLTD.dtype == np.float32
        assert found.features_BLTD.shape[:3] == (1, 1, neural.frame_count(samples, layer)), layer
        assert found.lengths_B.tolist() == [found.features_BLTD.shape[2]]
        assert np.isfinite(found.features_BLTD).all(), layer


def test_silence_is_finite(neural: TorchEncoder) -> None:
    silence = np.zeros((1, neural.sample_rate), dtype=np.float32)
    assert np.isfinite(neural.encode(silence).features_BLTD).all()


def test_defaults_are_those_of_the_network(neural: TorchEncoder) -> None:
    """They are written twice: each of the two can be built on its own."""
    ours, its = (inspect.signature(kind).parameters for kind in (type(neural), type(neural.module)))
    assert its.keys() <= ours.keys()
    assert {name: ours[name].default for name in its} == {name: its[name].default for name in its}


def test_refusals(neural: TorchEncoder) -> None:
    shortest = neural.min_samples
    with pytest.raises(ValueError, match="no layer block_99"):
        neural.encode(noise(1, neural.sample_rate), layers=("block_99",))
    with pytest.raises(ValueError, match=f"{shortest} samples, not {shortest - 1}"):
        neural.encode(noise(1, shortest - 1))
    with pytest.raises(ValueError, match=f"{shortest} samples, not {shortest - 1}"):
        neural.encode(noise(2, shortest), np.array([shortest, shortest - 1]))
    with pytest.raises(ValueError, match=f"{shortest} samples"):
        neural.encode(noise(0, shortest))
    weights = dict(neural.weights())
    name = max(weights, key=lambda name: weights[name].size)
    missing = {key: array for key, array in weights.items() if key != name}
    for wrong, message in (
        (missing, rf"lacks 1 of {TENSORS[neural.name]} .*{re.escape(name)}"),
        (weights | {name: weights[name][..., :-1]}, "of shape"),
        (weights | {name: np.full_like(weights[name], np.nan)}, re.escape(name)),
    ):
        with pytest.raises(WeightsError, match=message):
            create_encoder(neural.name, neural.config(), wrong)


@pytest.mark.parametrize("file", OFFICIAL)
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files_are_read_by_their_own_architecture_only(folder: Path, name: str, file: str) -> None:
    read = encoder_class(name).read_checkpoint
    tensors, about = official(folder / f"{file}_tiny.pt")
    assert (read(tensors, about) is not None) == (file == name)
    assert file == name or read(tensors, {}) is None


# --------------------------------------------------------------- broken promises


class Levels(Encoder):
    """Level of each tenth of a second. Keeps every promise; those below break one each."""

    name: ClassVar[str] = "levels"
    sample_rate, min_samples, layers, default_layer = 16_000, 1_600, ("level",), "level"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def config(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def encode(
        self, waveform_BS: np.ndarray, lengths_B: np.ndarray | None = None, layers: tuple[str, ...] | None = None
    ) -> Embedding:
        if layers not in (None, self.layers) or waveform_BS.shape[1] < self.min_samples:
            raise ValueError("no such layer, or too short")
        frames = waveform_BS.shape[1] // 1_600
        parts_BTN = waveform_BS[:, : frames * 1_600].reshape(len(waveform_BS), frames, 1_600)
        features_BLTD = self.scale * np.sqrt(np.mean(parts_BTN**2, axis=2))[:, None, :, None].astype(np.float32)
        lengths = np.full(len(waveform_BS), frames) if lengths_B is None else lengths_B // 1_600
        return Embedding(features_BLTD, lengths, self.layers)


class Forgets(Levels):
    def config(self) -> dict[str, Any]:
        return {"scale": 2.0}


class Secretive(Levels):
    def config(self) -> dict[str, Any]:
        return {"scale": np.float32(self.scale)}


class Wide(Levels):
    def encode(self, *arguments: Any, **named: Any) -> Embedding:
        found = super().encode(*arguments, **named)
        return Embedding(found.features_BLTD.astype(np.float64), found.lengths_B, found.layers)


class Hears(Levels):
    def encode(self, waveform_BS: np.ndarray, *arguments: Any, **named: Any) -> Embedding:
        if waveform_BS.shape[1] < self.min_samples:
            raise ValueError("too short")
        return super().encode(waveform_BS - waveform_BS.max(axis=1, keepdims=True), *arguments, **named)


class Lenient(Levels):
    def encode(self, waveform_BS: np.ndarray, lengths_B: Any = None, layers: Any = None) -> Embedding:
        return super().encode(waveform_BS, lengths_B)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Forgets, "built again from `config`.*they differ"),
        (Secretive, "config is not JSON"),
        (Wide, "float32.*They are float64"),
        (Hears, "padded to the length of another.*differ"),
        (Lenient, "Asked for|layer that it does not have.*was taken"),
    ],
)
def test_a_broken_promise_is_named(broken: type[Encoder], message: str) -> None:
    check_encoder(Levels)
    with pytest.raises(AssertionError, match=f"{broken.__name__} fails a check: .*({message})"):
        check_encoder(broken)

"""Fewer bits: close to float32, the original untouched; devices and padded batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from harken.core.errors import HarkenError
from harken.encoders import create_encoder, precision
from harken.encoders.beats import TINY as TINY_BEATS
from harken.encoders.dasheng import TINY as TINY_DASHENG
from harken.encoders.eat import TINY as TINY_EAT
from harken.encoders.fisher import TINY as TINY_FISHER
from harken.encoders.precision import apply_precision
from harken.encoders.torch_encoder import TorchEncoder

TINY = {"beats": TINY_BEATS, "dasheng": TINY_DASHENG, "eat": TINY_EAT, "fisher": TINY_FISHER}
TRANSFORMERS = sorted(TINY)


@pytest.fixture
def _able(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch emulates bfloat16 where the processor has none, which is slow but no different."""
    monkeypatch.setattr(precision, "_check_bf16", lambda device: None)


def build(name: str) -> TorchEncoder:
    encoder = create_encoder(name, TINY.get(name))
    assert isinstance(encoder, TorchEncoder)
    return encoder


def noise(clips: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=(clips, samples)).astype(np.float32)


def pooled(encoder: TorchEncoder, wave: np.ndarray) -> np.ndarray:
    return np.asarray(encoder.encode(wave).features_BLTD.mean(axis=(1, 2), dtype=np.float64))


def similarity(ours: np.ndarray, theirs: np.ndarray) -> float:
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / norms).min())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_int8_is_close_and_leaves_the_original(name: str) -> None:
    encoder = build(name)
    wave = noise(2, 20_000)
    before = encoder.encode(wave).features_BLTD
    state = {key: tensor.clone() for key, tensor in encoder.module.state_dict().items()}
    assert encoder.set_precision("int8") is encoder
    assert encoder.precision == "int8"
    small = encoder.encode(wave).features_BLTD
    assert similarity(small.mean(axis=(1, 2)), before.mean(axis=(1, 2))) > 0.999
    assert 1e-5 < np.abs(small - before).max() < 0.2 * before.std()
    np.testing.assert_array_equal(encoder.encode(wave[:1]).features_BLTD[0], small[0])
    for key, tensor in encoder.module.state_dict().items():
        assert torch.equal(tensor, state[key])
    assert set(encoder.weights()) == set(build(name).weights())
    encoder.set_precision("fp32")
    np.testing.assert_array_equal(encoder.encode(wave).features_BLTD, before)


def test_int8_linear_by_definition() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(24, 32)
    with torch.no_grad():
        linear.weight[3] = 0
    x = torch.randn(5, 24)
    weight = linear.weight.detach().numpy().astype(np.float64)
    scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True) / 127, 1e-30)
    expected = x.numpy() @ (np.round(weight / scale) * scale).T + linear.bias.detach().numpy()
    found = apply_precision(nn.Sequential(linear), "int8")(x)
    # Activations of 7 bits between the least and the greatest.
    step = (x.max() - x.min()) / 127
    assert np.abs(found.numpy() - expected).max() < float(step) * np.abs(weight).sum(axis=1).max() / 2
    assert torch.equal(found[:, 3], linear.bias[3].expand(5))


def test_int8_spares_small_layers_and_subclasses() -> None:
    class Adapter(nn.Linear):
        pass

    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8), Adapter(8, 64))
    small = apply_precision(module, "int8")
    assert [type(part).__name__ for part in small.children()] == ["_Int8Linear", "Linear", "Adapter"]
    assert type(module[0]) is nn.Linear
    assert next(iter(small.children()), None) is not module[0]
    with pytest.raises(HarkenError, match="no linear layers"):
        apply_precision(nn.Sequential(nn.Conv2d(1, 1, 3)), "int8")


@pytest.mark.usefixtures("_able")
@pytest.mark.parametrize("name", [*TRANSFORMERS, "efficientat", "yamnet"])
def test_bf16_is_close_and_leaves_the_front_end(name: str) -> None:
    encoder = build(name)
    wave = noise(1, 32_000 if name == "efficientat" else 20_000)
    before = encoder.encode(wave).features_BLTD
    encoder.set_precision("bf16")
    found = encoder.encode(wave)
    assert found.features_BLTD.dtype == np.float32
    assert similarity(found.features_BLTD.mean(axis=(1, 2)), before.mean(axis=(1, 2))) > 0.999
    assert np.abs(found.features_BLTD - before).max() > 0
    assert all(parameter.dtype == torch.float32 for parameter in encoder.module.parameters())
    assert not torch.is_autocast_enabled("cpu")
    # What enters the first learned layer is bitwise that of float32.
    inputs: dict[str, torch.Tensor] = {}
    for key, module in (("fp32", encoder.module), ("bf16", encoder._changed)):
        assert module is not None
        first = next(
            part for part in module.modules() if isinstance(part, nn.Conv2d) or "Convolution" in type(part).__name__
        )
        handle = first.register_forward_pre_hook(lambda part, given, key=key: inputs.update({key: given[0]}))
        with torch.inference_mode():
            module(torch.from_numpy(wave), (encoder.default_layer,))
        handle.remove()
    assert torch.equal(inputs["fp32"], inputs["bf16"])


@pytest.mark.usefixtures("_able")
def test_bf16_leaves_autocast_after_an_error() -> None:
    encoder = build("beats").set_precision("bf16")
    assert encoder._changed is not None
    with pytest.raises(ValueError, match="too short"):
        encoder._changed(torch.zeros(1, 100), ())
    assert not torch.is_autocast_enabled("cpu")


def test_what_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build("beats")
    with pytest.raises(HarkenError, match="Choose one of fp32, bf16, int8"):
        encoder.set_precision("fp8")  # type: ignore[arg-type]
    with pytest.raises(HarkenError, match="int8 is for CPUs"):
        precision._check_int8(torch.device("cuda"))
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(HarkenError, match="bfloat16"):
            encoder.set_precision("bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HarkenError, match="CUDA"):
        encoder.to("cuda")
    assert encoder.precision == "fp32"
    assert encoder.to("cpu") is encoder


def test_other_weights_are_shared_and_modes_kept() -> None:
    module = build("eat").module.train()
    small = apply_precision(module, "int8")
    assert module.training
    assert not small.training
    ours = {parameter.data_ptr() for parameter in module.parameters()}
    assert {parameter.data_ptr() for parameter in small.parameters()} <= ours
    assert apply_precision(module, "fp32") is module


@pytest.mark.parametrize("name", [*TRANSFORMERS, "yamnet"])
def test_padded_batches_of_accelerators_agree_with_single_clips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU that says it is something else: grouping is the same, kernels are not."""
    encoder = build(name)
    lengths = np.array([20_000, 33_000, 19_100, 16_500, 33_000, 31_000])
    wave = noise(6, 33_000)
    for clip, length in zip(wave, lengths, strict=True):
        clip[length:] = 0
    alone = encoder.encode(wave, lengths)
    sizes: list[int] = []
    run = encoder._encode_equal
    monkeypatch.setattr(encoder, "_encode_equal", lambda wave, layers: sizes.append(len(wave)) or run(wave, layers))

    class Elsewhere:
        type = "elsewhere"

    real = type(encoder)._batches

    def batches(self: TorchEncoder, lengths: np.ndarray) -> Iterator[np.ndarray]:
        with monkeypatch.context() as patch:
            patch.setattr(TorchEncoder, "_device", Elsewhere())
            found = list(real(self, lengths))
        yield from found

    monkeypatch.setattr(TorchEncoder, "_batches", batches)
    together = encoder.encode(wave, lengths)
    assert sizes == ([2, 1, 1, 1, 1] if name == "yamnet" else [3, 3])
    np.testing.assert_array_equal(together.lengths_B, alone.lengths_B)
    for row, frames in enumerate(alone.lengths_B):
        ours, theirs = together.features_BLTD[row, 0, :frames], alone.features_BLTD[row, 0, :frames]
        # BEATs hears, as its reference does, a little of the padding; see `BEATsNet.valid_tokens`.
        tolerance = 0.3 if name == "beats" else 1e-4
        assert np.abs(ours - theirs).max() < tolerance * theirs.std()
        assert not together.features_BLTD[row, 0, frames:].any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_cuda_agrees_with_the_cpu(name: str) -> None:
    encoder = build(name)
    wave, lengths = noise(3, 33_000), np.array([33_000, 30_000, 33_000])
    before = pooled(encoder, wave)
    padded = copy.deepcopy(encoder.encode(wave, lengths))
    encoder.to("cuda")
    assert similarity(pooled(encoder, wave), before) > 0.9999
    np.testing.assert_array_equal(encoder.encode(wave, lengths).lengths_B, padded.lengths_B)
    encoder.set_precision("bf16")
    assert similarity(pooled(encoder, wave), before) > 0.999
    with pytest.raises(HarkenError, match="int8 is for CPUs"):
        encoder.set_precision("int8")

"""EfficientAT: blocks against slow numpy, published weights against common sense, the contract."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder_suite import noise
from harken.audio.resample import resample
from harken.core.errors import HarkenError, WeightsError
from harken.encoders import create_encoder
from harken.encoders.checkpoints import load
from harken.encoders.efficientat import LONGEST, UNIT, EfficientAT, frame_count

RATE = 32_000


@pytest.fixture(scope="module")
def encoder() -> EfficientAT:
    return EfficientAT(seed=0)


@pytest.fixture(scope="module")
def trained(shared: Path) -> EfficientAT:
    return EfficientAT(load(shared / "weights" / "mn04_as_mAP_432.pt").weights)


def test_spectrogram_by_definition(encoder: EfficientAT) -> None:
    wave = noise(1, 8_000)
    emphasised = np.float64(wave[0, 1:]) - 0.97 * wave[0, :-1]
    padded = np.pad(emphasised, 512, mode="reflect")
    window = np.zeros(1024)
    window[112:912] = np.hanning(800)
    edges = 1127 * np.log1p(np.array([0, 15_000]) / 700)
    edges = np.linspace(*edges, 130)
    bins = 1127 * np.log1p(np.arange(513) * 31.25 / 700)
    bands = []
    for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
        triangle = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
        bands.append(np.maximum(triangle, 0))
    frames = []
    for start in range(0, len(padded) - 1023, 320):
        power = np.abs(np.fft.rfft(padded[start : start + 1024] * window)) ** 2
        frames.append((np.log(np.array(bands) @ power + 1e-5) + 4.5) / 5)
    ours = encoder.module.spectrogram(torch.from_numpy(wave))[0].numpy()
    np.testing.assert_allclose(ours, np.transpose(frames), atol=2e-5)


def test_first_stages_by_definition() -> None:
    net = EfficientAT(seed=3).module
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert tensor is not None
                    tensor.uniform_(0.5, 1.5)
    state = {name: tensor.double().numpy() for name, tensor in net.state_dict().items()}
    image = np.random.default_rng(0).normal(size=(16, 10))

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 0.001)
        shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def conv(x: np.ndarray, kernel: np.ndarray, stride: int, depthwise: bool) -> np.ndarray:
        size = kernel.shape[2]
        padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2))
        rows = range(0, padded.shape[1] - size + 1, stride)
        columns = range(0, padded.shape[2] - size + 1, stride)
        out = np.zeros((len(kernel), len(rows), len(columns)))
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                patch = padded[:, row : row + size, column : column + size]
                product = kernel[:, 0] * patch if depthwise else kernel * patch[None]
                out[:, i, j] = product.reshape(len(kernel), -1).sum(axis=1)
        return out

    x = norm(conv(image[None], state["features.0.0.weight"], 2, False), "features.0.1")
    x = x * np.clip(x + 3, 0, 6) / 6
    y = np.maximum(norm(conv(x, state["features.1.block.0.0.weight"], 1, True), "features.1.block.0.1"), 0)
    y = x + norm(conv(y, state["features.1.block.1.0.weight"], 1, False), "features.1.block.1.1")
    # Block 4 squeezes; feed it random maps, since only its own arithmetic is under test.
    maps = np.random.default_rng(1).normal(size=(16, 8, 6))
    z = conv(maps, state["features.4.block.0.0.weight"], 1, False)
    z = np.maximum(norm(z, "features.4.block.0.1"), 0)
    z = conv(z, state["features.4.block.1.0.weight"], 2, True)
    z = np.maximum(norm(z, "features.4.block.1.1"), 0)
    name = "features.4.block.2.conc_se_layers.0"
    gate = np.maximum(state[f"{name}.fc1.weight"] @ z.mean(axis=(1, 2)) + state[f"{name}.fc1.bias"], 0)
    gate = state[f"{name}.fc2.weight"] @ gate + state[f"{name}.fc2.bias"]
    z = z / (1 + np.exp(-gate))[:, None, None]
    z = norm(conv(z, state["features.4.block.3.0.weight"], 1, False), "features.4.block.3.1")

    with torch.inference_mode():
        ours = net.features[:2](torch.from_numpy(image[None, None]).float())[0].numpy()
        squeezed = net.features[4](torch.from_numpy(maps[None]).float())[0].numpy()
    np.testing.assert_allclose(ours, y, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(squeezed, z, atol=1e-4, rtol=1e-4)


def test_published_names_and_shapes(trained: EfficientAT) -> None:
    assert len(trained.weights()) == 312
    assert {name: array.shape for name, array in trained.weights().items()} == EfficientAT.tensor_shapes()


# AudioSet: 288 Water, 292 Stream, 450 Trickle; 407 Tick, 408 Tick-tock; 411 Sewing machine, 415 Printer.
@pytest.mark.parametrize(
    ("machine", "classes"), [("pump", {288, 292, 450}), ("slider", {411, 415}), ("valve", {407, 408})]
)
def test_hears_the_machine(shared: Path, trained: EfficientAT, machine: str, classes: set[int]) -> None:
    with (shared / "corpus" / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "dcase2020"]
    path = next(row["file"] for row in rows if row["machine"] == machine)
    samples, rate = sf.read(shared / "corpus" / path, dtype="float32", always_2d=True)
    logits = trained.encode(resample(samples.T[:1], rate, RATE), layers=("logits",)).features_BLTD
    assert int(logits.mean(axis=2).argmax()) in classes


def test_best_layer_of_a_10_second_clip(encoder: EfficientAT) -> None:
    found = encoder.encode(noise(1, 10 * RATE))
    assert found.layers == ("block_13",)
    assert found.features_BLTD.shape == (1, 1, 32, 64 * 4)
    assert found.lengths_B.tolist() == [32]
    map_BCFT = encoder.module.spectrogram(torch.from_numpy(noise(1, 10 * RATE)))[:, None]
    with torch.inference_mode():
        for stage in encoder.module.features[:14]:
            map_BCFT = stage(map_BCFT)
    # Dimension = channel x frequencies + frequency.
    assert found.features_BLTD[0, 0, 7, 5 * 4 + 2] == map_BCFT[0, 5, 2, 7]


@settings(max_examples=15, deadline=None)
@given(samples=st.integers(UNIT, 3 * RATE), layer=st.sampled_from(["block_0", "block_5", "block_13"]))
def test_any_length(samples: int, layer: str) -> None:
    found = EfficientAT(width=0.1).encode(noise(1, samples), layers=(layer,))
    assert found.features_BLTD.shape[2] == found.lengths_B[0] == frame_count(samples, layer)


@settings(max_examples=4, deadline=None)
@given(samples=st.integers(LONGEST - 2, 3 * LONGEST))
def test_long_clips_pass_in_windows(samples: int) -> None:
    small = EfficientAT(width=0.1)
    wave = noise(1, samples)
    found = small.encode(wave, layers=("block_13",))
    assert found.features_BLTD.shape[2] == -(-samples // UNIT) == found.lengths_B[0]
    # The first window alone gives the same frames, bit for bit.
    windows = -(-samples // LONGEST)
    first = (-(-samples // UNIT) // windows) * UNIT if windows > 1 else samples
    alone = small.encode(wave[:, :first], layers=("block_13",)).features_BLTD
    assert np.array_equal(found.features_BLTD[:, :, : alone.shape[2]], alone)
    assert small.encode(wave, layers=("pooled",)).features_BLTD.shape[2] == windows


def test_several_layers_in_one_pass(encoder: EfficientAT) -> None:
    wave = noise(1, RATE)
    layers = ("block_13", "block_15")
    found = encoder.encode(wave, layers=layers)
    for index, layer in enumerate(layers):
        assert np.array_equal(found.features_BLTD[:, index], encoder.encode(wave, layers=(layer,)).features_BLTD[:, 0])
    with pytest.raises(ValueError, match="differ in shape"):
        encoder.encode(wave, layers=("block_13", "pooled"))


def test_module_can_be_trained() -> None:
    net = EfficientAT(width=0.1).module.train()
    (features,) = net(torch.from_numpy(noise(2, RATE)), layers=("block_13",))
    features.square().mean().backward()
    assert net.features[0][0].weight.grad.abs().sum() > 0  # type: ignore[index, union-attr]


def test_refusals(encoder: EfficientAT) -> None:
    assert encoder.min_samples == UNIT == 10_240
    with pytest.raises(WeightsError, match="of shape"):
        EfficientAT(encoder.weights(), width=1.0)


@pytest.mark.parametrize("width", [1e17, 2**70, float("nan")])
def test_widths_that_no_network_has_are_refused_in_one_sentence(width: float) -> None:
    with pytest.raises((HarkenError, ValueError)) as error:
        create_encoder("efficientat", {"width": width})
    assert "\n" not in str(error.value)

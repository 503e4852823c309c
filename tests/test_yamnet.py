"""YAMNet: first layers against slow numpy, published weights against its own test, the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder_suite import noise
from harken.encoders.checkpoints import load
from harken.encoders.yamnet import (
    PATCH_SAMPLES,
    PATCH_SHIFT_SAMPLES,
    YAMNet,
    frame_count,
    patch_count,
)

RATE = 16_000


@pytest.fixture(scope="module")
def encoder() -> YAMNet:
    return YAMNet(seed=0)


@pytest.fixture(scope="module")
def trained(shared: Path) -> YAMNet:
    return YAMNet(load(shared / "weights" / "yamnet_f32.npz").weights)


def test_patches_by_definition(encoder: YAMNet) -> None:
    wave = noise(1, 20_000)
    padded = np.pad(np.float64(wave[0]), (0, PATCH_SAMPLES + PATCH_SHIFT_SAMPLES - 20_000))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    edges = np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7500 / 700), 66)
    bins = 1127 * np.log1p(np.arange(257) * 31.25 / 700)
    frames = []
    for start in range(0, len(padded) - 399, 160):
        magnitude = np.abs(np.fft.rfft(padded[start : start + 400] * window, 512))
        mel = []
        for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
            triangle = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
            mel.append(magnitude @ np.maximum(triangle, 0))
        frames.append(np.log(np.array(mel) + 0.001))
    expected = np.array([frames[:96], frames[48:144]])
    ours = encoder.module.patches(torch.from_numpy(wave))[0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def same(x_TFC: np.ndarray, kernel: int, stride: int) -> tuple[np.ndarray, int, int]:
    """Pad as TensorFlow's SAME does; also the output's size."""
    pads, sizes = [], []
    for size in x_TFC.shape[:2]:
        out = -(-size // stride)
        total = max((out - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
        sizes.append(out)
    return np.pad(x_TFC, (*pads, (0, 0))), sizes[0], sizes[1]


def slow_layers(weights: dict[str, np.ndarray], x_TFC: np.ndarray, strides: list[int]) -> list[np.ndarray]:
    """First layers in the weights' own layout (height, width, in, out), looping over positions."""

    def norm(x: np.ndarray, index: int) -> np.ndarray:
        mean, variance = weights[f"{index:02d}.moving_mean"], weights[f"{index:02d}.moving_variance"]
        return np.maximum((x - mean) / np.sqrt(variance + 1e-4) + weights[f"{index:02d}.beta"], 0)

    outputs = []
    index = 0
    for layer, stride in enumerate(strides):
        padded, rows, columns = same(x_TFC, 3, stride)
        channels = 32 if layer == 0 else x_TFC.shape[2]
        filtered = np.zeros((rows, columns, channels))
        for i in range(rows):
            for j in range(columns):
                patch = padded[i * stride : i * stride + 3, j * stride : j * stride + 3]
                if layer == 0:
                    filtered[i, j] = np.tensordot(patch, weights["00.kernel"], axes=3)
                else:
                    kernel = weights[f"{index:02d}.depthwise_kernel"][..., 0]
                    filtered[i, j] = (patch * kernel).sum(axis=(0, 1))
        x_TFC = norm(filtered, index + 1)
        index += 2
        if layer > 0:
            x_TFC = norm(x_TFC @ weights[f"{index:02d}.kernel"][0, 0], index + 1)
            index += 2
        outputs.append(x_TFC)
    return outputs


def test_first_layers_by_definition() -> None:
    rng = np.random.default_rng(0)
    weights = {
        name: rng.uniform(0.5, 1.5, array.shape).astype(np.float32) if array.ndim == 1 else array
        for name, array in YAMNet(seed=4).weights().items()
    }
    encoder = YAMNet(weights)
    wave = noise(1, PATCH_SAMPLES)
    patch = encoder.module.patches(torch.from_numpy(wave))[0, 0].double().numpy()
    for index, expected_TFC in enumerate(slow_layers(weights, patch[:, :, None], [2, 1, 2])):
        ours = encoder.encode(wave, layers=(f"layer_{index + 1}",)).features_BLTD[0, 0]
        # Dimension = channel x frequencies + frequency.
        expected = expected_TFC.transpose(0, 2, 1).reshape(len(ours), -1)
        np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=1e-4)


def test_published_self_test(trained: YAMNet) -> None:
    # The test that ships with YAMNet: the class is among the ten best of a 3 s clip.
    time = np.arange(3 * RATE) / RATE
    uniform = np.random.RandomState(51773).uniform(-1.0, 1.0, 3 * RATE)
    clips = np.stack([np.zeros(3 * RATE), uniform, np.sin(2 * np.pi * 440 * time)]).astype(np.float32)
    scores = trained.encode(clips, layers=("scores",)).features_BLTD[:, 0].mean(axis=1)
    best = np.argsort(-scores)[:, :10]
    silence, white_noise, sine_wave = 494, 514, 495
    assert silence == best[0, 0]
    assert white_noise == best[1, 0]
    assert sine_wave in best[2]


def test_weights_go_in_and_out_unchanged(shared: Path, trained: YAMNet) -> None:
    with np.load(shared / "weights" / "yamnet_f32.npz") as arrays:
        assert set(arrays.files) == set(trained.weights())
        for name, array in trained.weights().items():
            assert np.array_equal(array, arrays[name])


def test_default_layer_of_a_10_second_clip(encoder: YAMNet) -> None:
    assert encoder.encode(noise(1, 10 * RATE)).features_BLTD.shape == (1, 1, 20 * 6, 512 * 4)


@settings(max_examples=10, deadline=None)
@given(samples=st.integers(PATCH_SAMPLES, 3 * RATE), layer=st.sampled_from(["layer_2", "layer_9"]))
def test_any_length(encoder: YAMNet, samples: int, layer: str) -> None:
    found = encoder.encode(noise(1, samples), layers=(layer,))
    assert found.features_BLTD.shape[2] == found.lengths_B[0] == frame_count(samples, layer)


@given(samples=st.integers(1, 10_000_000))
def test_patches_cover_the_clip(samples: int) -> None:
    covered = PATCH_SAMPLES + (patch_count(samples) - 1) * PATCH_SHIFT_SAMPLES
    assert covered >= samples
    assert patch_count(samples) == 1 or covered - PATCH_SHIFT_SAMPLES < samples


def test_long_clips_pass_in_groups(encoder: YAMNet) -> None:
    samples = PATCH_SAMPLES + 65 * PATCH_SHIFT_SAMPLES
    wave = noise(1, samples)
    found = encoder.encode(wave, layers=("layer_3",)).features_BLTD
    assert found.shape[2] == 66 * 24
    last = encoder.encode(wave[:, -PATCH_SAMPLES:], layers=("layer_3",)).features_BLTD
    np.testing.assert_allclose(found[0, 0, -24:], last[0, 0], atol=1e-5)


def test_module_can_be_trained() -> None:
    net = YAMNet().module.train()
    (features,) = net(torch.from_numpy(noise(1, RATE)), layers=("layer_3",))
    features.square().mean().backward()
    kernel = net.get_parameter("00.kernel")
    assert kernel.grad is not None
    assert kernel.grad.abs().sum() > 0


def test_refusals(encoder: YAMNet) -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        encoder.encode(noise(1, RATE), layers=("layer_9", "embedding"))
    assert encoder.min_samples == PATCH_SAMPLES == 15_600

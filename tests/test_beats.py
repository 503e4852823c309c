"""BEATs: the reference's own outputs, the blocks by definition, the contract."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import encoder_suite as suite
from encoder_suite import noise
from harken.core.errors import WeightsError
from harken.encoders.beats import LONGEST, STEP, TAIL, TINY, BEATs, _buckets, token_count
from harken.encoders.checkpoints import load

RATE = 16_000
SHORTEST = STEP + TAIL
folder = suite.folder


@pytest.fixture(scope="module")
def encoder() -> BEATs:
    return BEATs(**TINY, seed=0)


@pytest.fixture(scope="module")
def golden(folder: Path) -> tuple[BEATs, dict[str, np.ndarray]]:
    """The reference's random network, its inputs and outputs."""
    found = load(folder / "beats_tiny.pt")
    return BEATs(found.weights, **found.config), load_file(folder / "beats_tiny_io.safetensors")


# ------------------------------------------------------------------ reference


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_reference(golden: tuple[BEATs, dict[str, np.ndarray]], attention: Any) -> None:
    encoder, reference = golden
    net = BEATs(encoder.weights(), **{**encoder.config(), "attention": attention}).module
    wave_BS = torch.from_numpy(reference["waveform"])
    lengths_B = torch.from_numpy((reference["padding_mask"] == 0).sum(axis=1))
    with torch.inference_mode():
        np.testing.assert_allclose(net.spectrogram(wave_BS).numpy(), reference["fbank"], atol=1e-4)
        np.testing.assert_allclose(net(wave_BS)[0].numpy(), reference["features"], atol=1e-4)
        masked = net(wave_BS, (), lengths_B)[0].numpy()
        np.testing.assert_allclose(masked, reference["features_masked"], atol=1e-4)
    valid_B = net.valid_tokens(lengths_B, wave_BS.shape[1])
    assert valid_B.tolist() == (reference["padding_mask_out"] == 0).sum(axis=1).tolist()


def test_encode_is_the_reference_without_padding(golden: tuple[BEATs, dict[str, np.ndarray]]) -> None:
    encoder, reference = golden
    found = encoder.encode(reference["waveform"])
    assert found.layers == ("block_3",)
    assert found.lengths_B.tolist() == [112, 112]
    np.testing.assert_allclose(found.features_BLTD[:, 0], reference["features"], atol=1e-4)


def test_size_of_the_published_networks() -> None:
    shapes = BEATs.tensor_shapes()
    assert sum(math.prod(shape) for shape in shapes.values()) == 90_311_792
    # The published files repeat the table of position biases in each of the other eleven layers.
    assert len(shapes) + 11 == 250
    assert shapes["encoder.pos_conv.0.weight_v"] == (768, 48, 128)


# -------------------------------------------------------------- by definition


def test_buckets_by_definition() -> None:
    length = 1500
    found = _buckets(length, 320, 800).tolist()
    for distance in range(1 - length, length):
        away = abs(distance)
        bucket = away if away < 80 else min(159, 80 + int(math.log(away / 80) / math.log(10) * 80))
        assert found[distance + length - 1] == bucket + (160 if distance > 0 else 0)


def test_position_bias_is_of_key_minus_query(encoder: BEATs) -> None:
    net = encoder.module.encoder
    bias_HLL = net._position_bias(100)
    table = net.relative_attention_bias.weight
    bucket_R = _buckets(100, 320, 800)
    for query, key in ((0, 0), (0, 99), (99, 0), (17, 42)):
        assert torch.equal(bias_HLL[:, query, key], table[bucket_R[key - query + 99]])


@pytest.mark.parametrize("lengths", [[160_000, 1], [48_123, 80_001], [2_800, 160_000]])
def test_valid_tokens_by_definition(encoder: BEATs, lengths: list[int]) -> None:
    samples = 160_000
    frames, tokens = 998, 496
    padding_BT = torch.arange(samples) >= torch.tensor(lengths)[:, None]
    for groups in (frames, tokens):
        size = padding_BT.shape[1] // groups
        padding_BT = padding_BT[:, : size * groups].unflatten(1, (groups, size)).all(dim=2)
    found_B = encoder.module.valid_tokens(torch.tensor(lengths), samples)
    assert found_B.tolist() == (~padding_BT).sum(dim=1).tolist()


def test_padding_is_not_heard(encoder: BEATs) -> None:
    wave = torch.from_numpy(noise(2, RATE))
    other = wave.clone()
    # From the fifth column on; the clip ends in the fourth.
    other[1, 4 * STEP + TAIL :] = 1.0
    lengths_B = torch.tensor([RATE, RATE // 2])
    valid = int(encoder.module.valid_tokens(lengths_B, RATE)[1])
    assert valid == 3 * 8 + 1
    with torch.inference_mode():
        one, same = (encoder.module(w, ("block_2",), lengths_B)[0] for w in (wave, other))
        heard = encoder.module(other, ("block_2",))[0]
    assert torch.equal(one[0], same[0])
    assert torch.equal(one[1, :valid], same[1, :valid])
    assert not torch.allclose(one[1, :valid], heard[1, :valid], atol=1e-2)


def test_tokens_run_through_the_bands_first(encoder: BEATs) -> None:
    wave = noise(1, RATE)
    net = encoder.module
    with torch.inference_mode():
        tokens = net.patches(net.spectrogram(torch.from_numpy(wave)))[0]
    assert len(tokens) == token_count(RATE) == 6 * BEATs.patch_bands
    image = net.spectrogram(torch.from_numpy(wave))
    patch = image[0, 2 * 16 : 3 * 16, 5 * 16 : 6 * 16]
    with torch.inference_mode():
        embedded = (net.patch_embedding.weight[:, 0] * patch).sum(dim=(1, 2))
        expected = net.post_extract_proj(net.layer_norm(embedded))
    np.testing.assert_allclose(tokens[2 * 8 + 5], expected.numpy(), atol=1e-5)


def test_the_layer_patches_is_what_enters_the_first_block(encoder: BEATs) -> None:
    net, entered = encoder.module, []
    hook = net.encoder.layers[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    wave = noise(1, RATE)
    encoder.encode(wave)
    hook.remove()
    found = encoder.encode(wave, layers=("patches", "block_1"))
    assert np.array_equal(found.features_BLTD[:, 0], entered[0].numpy())
    assert np.array_equal(encoder.encode(wave, layers=("patches",)).features_BLTD[:, 0], entered[0].numpy())


# ------------------------------------------------------------------- contract


def test_sdpa_and_eager_agree(encoder: BEATs) -> None:
    eager = BEATs(encoder.weights(), **TINY, attention="eager")
    wave = noise(1, 5 * RATE)
    one, other = (e.encode(wave, layers=encoder.layers).features_BLTD for e in (encoder, eager))
    assert one.shape == (1, 4, token_count(5 * RATE), 96)
    np.testing.assert_allclose(one, other, atol=2e-5)
    assert eager.config()["attention"] == "eager"


@settings(max_examples=15)
@given(samples=st.integers(SHORTEST, 3 * RATE))
def test_any_length(encoder: BEATs, samples: int) -> None:
    found = encoder.encode(noise(1, samples))
    assert found.features_BLTD.shape[2] == found.lengths_B[0] == token_count(samples)
    assert np.isfinite(found.features_BLTD).all()


@settings(max_examples=3)
@given(samples=st.integers(LONGEST * STEP, 2 * LONGEST * STEP + RATE))
def test_long_clips_pass_in_windows(samples: int) -> None:
    small = BEATs(**{**TINY, "depth": 1})
    wave = noise(1, samples)
    found = small.encode(wave)
    assert found.features_BLTD.shape[2] == found.lengths_B[0] == token_count(samples)
    start, stop = small.passes(samples)[0]
    assert start == 0
    assert stop - start <= LONGEST * STEP + TAIL
    alone = small.encode(wave[:, :stop]).features_BLTD
    assert np.array_equal(found.features_BLTD[:, :, : alone.shape[2]], alone)
    # Patches before positions know nothing of windows.
    net = small.module
    with torch.inference_mode():
        whole, *cut = (
            net.patches(net.spectrogram(torch.from_numpy(wave[:, start:stop])))[0]
            for start, stop in [(0, samples), *small.passes(samples)]
        )
    np.testing.assert_allclose(torch.cat(cut).numpy(), whole.numpy(), atol=1e-4)


def test_every_parameter_learns() -> None:
    encoder = BEATs(**TINY, seed=5)
    net = encoder.module
    # Softmax is blind to what shifts every key alike.
    suite.check_everything_learns(net, RATE, ("block_3",), blind="k_proj.bias")
    # What was trained is what is saved.
    with torch.no_grad():
        net.encoder.layers[0].fc1.weight.add_(1)  # type: ignore[operator, union-attr]
    assert np.array_equal(
        encoder.weights()["encoder.layers.0.fc1.weight"], net.state_dict()["encoder.layers.0.fc1.weight"].numpy()
    )


def test_half_precision_autocast(encoder: BEATs) -> None:
    wave_BS = torch.from_numpy(noise(1, RATE))
    with torch.inference_mode():
        (exact,) = encoder.module(wave_BS)
        with torch.autocast("cpu", torch.bfloat16):
            (rounded,) = encoder.module(wave_BS, (), torch.tensor([RATE]))
    assert (exact - rounded).abs().mean() < 0.05


def test_refusals(encoder: BEATs) -> None:
    with pytest.raises(ValueError, match="there are patches, block_1"):
        encoder.module(torch.zeros(1, RATE), ("block_99",))
    assert encoder.min_samples == SHORTEST == 2800
    with pytest.raises(ValueError, match="too short"):
        encoder.module(torch.zeros(1, SHORTEST - 1))
    with pytest.raises(ValueError, match="do not fit"):
        BEATs(width=100)
    with pytest.raises(ValueError, match="attention"):
        BEATs(**TINY, attention="fast")  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="of shape"):
        BEATs(encoder.weights(), **{**TINY, "ffn": 100})


# ------------------------------------------------------------ published files


def published(encoder: BEATs) -> dict[str, np.ndarray]:
    """Weights by the names of the published files."""
    weights = dict(encoder.weights())
    table = weights.pop("encoder.relative_attention_bias.weight")
    for index in range(len(encoder.layers) - 1):
        weights[f"encoder.layers.{index}.self_attn.relative_attention_bias.weight"] = table.copy()
    return weights


CFG = {"encoder_layers": 3, "max_distance": 800, "deep_norm": True, "layer_norm_first": False, "input_patch_size": 16}


def test_published_names(encoder: BEATs) -> None:
    wave = noise(1, RATE)
    features = encoder.encode(wave).features_BLTD
    tensors = published(encoder)
    tuned = {**tensors, "predictor.weight": np.zeros((527, 96)), "predictor.bias": np.zeros(527)}
    newer = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): array
        for name, array in tensors.items()
    }
    for found in (
        BEATs.read_checkpoint(tensors, {"cfg": CFG}),
        BEATs.read_checkpoint(tuned, {"cfg": CFG, "label_dict": {"0": "/m/09x0r"}}),
        BEATs.read_checkpoint(newer, {}),
        BEATs.read_checkpoint(encoder.weights(), {}),
    ):
        assert found is not None
        config, weights = found
        assert {key: config[key] for key in TINY} == TINY
        assert np.array_equal(BEATs(weights, **config).encode(wave).features_BLTD, features)


def test_another_distance_is_heard(encoder: BEATs) -> None:
    found = BEATs.read_checkpoint(published(encoder), {"cfg": {**CFG, "max_distance": 1280}})
    assert found is not None
    other = BEATs(found[1], **found[0])
    wave = noise(1, 5 * RATE)
    assert not np.array_equal(other.encode(wave).features_BLTD, encoder.encode(wave).features_BLTD)


def test_files_of_other_architectures(encoder: BEATs) -> None:
    assert BEATs.read_checkpoint({}, {}) is None
    assert BEATs.read_checkpoint({"blocks.0.attn.qkv.weight": np.zeros((3, 1))}, {"cfg": {"depth": 1}}) is None
    # WavLM has the gates, but hears no patches.
    wavlm = {name: array for name, array in published(encoder).items() if name != "patch_embedding.weight"}
    assert BEATs.read_checkpoint(wavlm, {"cfg": {"encoder_layers": 3}}) is None


def test_bad_files(encoder: BEATs) -> None:
    def refused(match: str, tensors: dict[str, np.ndarray], **cfg: object) -> None:
        with pytest.raises(WeightsError, match=match) as caught:
            BEATs.read_checkpoint(tensors, {"cfg": {**CFG, **cfg}})
        assert caught.value.next_step

    good = published(encoder)
    refused("lacks 1 of 68", {name: array for name, array in good.items() if name != "patch_embedding.weight"})
    refused("lacks 19 of 87", good, encoder_layers=4)
    refused("does not know, first quantize", {**good, "quantize.embed": np.zeros(3, np.float32)})
    refused("fc2.weight of shape", {**good, "encoder.layers.1.fc2.weight": np.zeros((96, 5), np.float32)})
    refused("not finite", {**good, "layer_norm.bias": np.full(64, np.nan, np.float32)})
    refused("deep_norm False", good, deep_norm=False)
    refused("impossible sizes", good, max_distance="far")
    refused("impossible sizes", {**good, "encoder.layers.0.self_attn.grep_a": np.ones((1, 5, 1, 1), np.float32)})
    name = "encoder.layers.2.self_attn.relative_attention_bias.weight"
    refused("differ in their position biases", {**good, name: good[name] + 1})

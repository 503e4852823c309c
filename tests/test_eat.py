"""EAT: the reference implementation's outputs, official files of every kind, windows, the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import encoder_suite as suite
from encoder_suite import noise, official
from harken.core.errors import WeightsError
from harken.encoders.eat import BANDS, EAT, FRAMES, HOP, PATCH, TINY, positions, suppress_spikes

RATE = 16_000
LAST = "block_3"
IMAGE = "modality_encoders.IMAGE."
#: samples of one window of the tiny network
WINDOW = TINY["target_frames"] * HOP
folder = suite.folder


@pytest.fixture(scope="module")
def tiny() -> EAT:
    return EAT(**TINY, seed=0)


@pytest.fixture(scope="module")
def golden(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "eat_tiny_io.safetensors")


@pytest.fixture(scope="module")
def trained(folder: Path) -> EAT:
    found = EAT.read_checkpoint(*official(folder / "eat_tiny.pt"))
    assert found is not None
    config, weights = found
    assert config == TINY
    return EAT(weights, **config)


def test_equals_the_reference(trained: EAT, golden: dict[str, torch.Tensor]) -> None:
    targets = [f"target_{number}" for number in (1, 2, 3)]
    with torch.inference_mode():
        spectrogram = trained.module.spectrogram(golden["waveform"])
        outputs = trained.module(golden["waveform"], (LAST, *targets))
    expected = [golden["features"], *(golden[f"layer_target_{index}"] for index in range(3))]
    assert (spectrogram - golden["spectrogram"][:, 0]).abs().max() < 5e-5
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 5e-5
    # `encode` leaves out the patches that are all padding.
    found = trained.encode(golden["waveform"].numpy())
    frames = 1 + BANDS * -(-(1 + (32_800 - 400) // HOP) // PATCH)
    assert found.lengths_B.tolist() == [frames, frames]
    np.testing.assert_allclose(found.features_BLTD[:, 0], golden["features"][:, :frames], atol=5e-5)


def test_positions_equal_the_stored_table(folder: Path) -> None:
    tensors, _ = official(folder / "eat_tiny.pt")
    table = tensors[IMAGE + "fixed_positional_encoder.positions"][0]
    # The difference is that of float32 powers, and grows with time.
    np.testing.assert_allclose(positions(64, 96), table[: 64 * BANDS], atol=4e-6)
    np.testing.assert_allclose(positions(768, 96), table, atol=1e-4)


@pytest.mark.parametrize(("width", "depth", "heads", "count"), [(768, 12, 12, 85_254_144), (1024, 24, 16, 302_575_616)])
def test_published_sizes(width: int, depth: int, heads: int, count: int) -> None:
    # Convolution with bias, CLS, norm; a block has 12 D^2 of weights and 13 D of biases and norms.
    assert count == (256 + 1 + 1 + 2) * width + depth * (12 * width**2 + 13 * width)
    shapes = EAT.tensor_shapes(width=width, depth=depth, heads=heads)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == count


def test_reads_every_kind_of_official_file(folder: Path, trained: EAT) -> None:
    tensors, about = official(folder / "eat_tiny.pt")
    weights = trained.weights()
    teacher = {f"_ema.{name}": 2 * array for name, array in tensors.items()}
    classifier = {"fc_norm.weight": np.ones(96), "head.weight": np.ones((5, 96))}
    tuned = {f"model.{name}": array for name, array in tensors.items() if "decoder" not in name}
    hub = {
        name.replace(f"model.{IMAGE}", "model.").replace("context_encoder.norm", "pre_norm"): array
        for name, array in tuned.items()
    }
    hub |= {f"model.{name}": array for name, array in classifier.items()}
    half = {name: array.astype(np.float16) for name, array in tensors.items()}
    cfg = about["cfg"]
    nested = {"cfg": {"task": {"target_length": 256}, "model": {"pretrained_model_args": {"model": {"num_heads": 4}}}}}
    files = (
        (tensors | teacher, about),
        (tuned | classifier, nested),
        (hub, {"num_heads": 4, "img_size": [256, 128]}),
        (dict(weights), {"cfg": cfg}),
        (half, about),
    )
    suite.check_reads(EAT.read_checkpoint, files, TINY, weights)


def test_sizes_without_a_configuration() -> None:
    net = EAT(width=128, depth=1, heads=2, target_frames=32)
    found = EAT.read_checkpoint(dict(net.weights()), {})
    assert found is not None
    assert found[0] == {"width": 128, "depth": 1, "heads": 2, "target_frames": FRAMES}


def test_damaged_files_are_refused(folder: Path) -> None:
    tensors, about = official(folder / "eat_tiny.pt")
    norm, proj = IMAGE + "context_encoder.norm.weight", IMAGE + "local_encoder.proj.weight"
    needed = (norm, proj, IMAGE + "extra_tokens", "blocks.1.attn.qkv.weight", "blocks.2.mlp.fc2.bias")
    unknown = (IMAGE + "context_encoder.blocks.0.norm1.weight", "norm.weight", IMAGE + "alibi_scale")
    suite.check_damage_is_refused(EAT.read_checkpoint, tensors, about, needed=needed, count=41, unknown=unknown)
    for cfg in ({}, {"num_heads": 5}, {"num_heads": 4.0}, {"num_heads": 4, "target_length": 100}):
        with pytest.raises(WeightsError, match="do not fit"):
            EAT.read_checkpoint(tensors, {"cfg": cfg})
    # Learned positions are another architecture.
    table = IMAGE + "fixed_positional_encoder.positions"
    assert EAT.read_checkpoint(tensors | {table: tensors[table] + 0.01}, about) is None


def test_layers(tiny: EAT) -> None:
    assert tiny.layers == ("patches", "block_1", "target_1", "block_2", "target_2", "block_3", "target_3")
    assert tiny.default_layer == LAST
    suite.check_layers(tiny, RATE, (1 + BANDS * 7, 96))


def test_padding_is_what_the_reference_pads(tiny: EAT) -> None:
    wave = torch.from_numpy(noise(3, 30_000, seed=1)) + 0.05
    lengths = torch.tensor([30_000, 12_345, 400])
    with torch.inference_mode():
        for net in (tiny.module, EAT(**{**TINY, "mask": True}).module):
            together = net(wave, ("patches", LAST), lengths)
            for index, length in enumerate(lengths.tolist()):
                alone = net(wave[index : index + 1, :length], ("patches", LAST))
                for ours, theirs in zip(together, alone, strict=True):
                    np.testing.assert_allclose(ours[index], theirs[0], atol=2e-5)
        spectrogram = tiny.module.spectrogram(wave, lengths)
    assert torch.allclose(spectrogram[1, 75:], torch.tensor(4.268 / 9.138))


def test_mask_hides_padding() -> None:
    wave = noise(1, 20_000, seed=2)
    masked = EAT(**TINY, mask=True).encode(wave).features_BLTD
    short = EAT(**{**TINY, "target_frames": None}).encode(wave).features_BLTD
    seen = EAT(**TINY).encode(wave).features_BLTD
    assert masked.shape == short.shape == seen.shape
    np.testing.assert_allclose(masked, short, atol=1e-5)
    assert np.abs(masked - seen).max() > 1e-2


@settings(max_examples=15)
@given(samples=st.integers(2_800, 2 * WINDOW), own=st.booleans())
def test_any_length(tiny: EAT, samples: int, own: bool) -> None:
    encoder = EAT(**{**TINY, "depth": 1, "target_frames": None}) if own else tiny
    found = encoder.encode(noise(1, samples), layers=("patches",))
    assert found.features_BLTD.shape[2] == found.lengths_B[0] == encoder.frame_count(samples, "patches")


@given(samples=st.integers(2_800, 100 * RATE), target=st.sampled_from([256, 1024, None]))
def test_windows_follow_each_other(samples: int, target: int | None) -> None:
    encoder = EAT(width=8, depth=1, heads=1, target_frames=target)
    passes = encoder.passes(samples)
    frames = 1 + (samples - 400) // HOP
    counts = [1 + (stop - start - 400) // HOP for start, stop in passes]
    assert passes[0][0] == 0
    assert passes[-1][1] == samples
    assert sum(counts) == frames
    assert set(counts[:-1]) <= {target or FRAMES}
    assert len(counts) == 1 or counts[-1] >= PATCH
    for start, stop in passes:
        assert len(encoder.passes(stop - start)) == 1
    steps = (encoder.frame_count(samples, "patches") - 1) // BANDS
    assert -(-frames // PATCH) - steps in {0, 1}
    if target is None:
        assert steps == -(-frames // PATCH)


def test_ten_seconds_take_one_window() -> None:
    encoder = EAT(width=8, depth=1, heads=1)
    assert encoder.passes(10 * RATE) == [(0, 10 * RATE)]
    assert encoder.frame_count(10 * RATE, "block_1") == 1 + 63 * 8
    assert len(encoder.passes(int(10.24 * RATE))) == 1
    assert encoder.passes(12 * RATE) == [(0, FRAMES * HOP + 240), (FRAMES * HOP, 12 * RATE)]


def test_one_cls_for_several_windows(tiny: EAT) -> None:
    wave = noise(1, 2 * WINDOW + 8_000)
    found = tiny.encode(wave)
    bounds = tiny.passes(wave.shape[1])
    parts = [tiny.encode(wave[:, start:stop]).features_BLTD[0, 0] for start, stop in bounds]
    assert [len(part) for part in parts] == [129, 129, 1 + BANDS * 3]
    assert np.array_equal(found.features_BLTD[0, 0, 1:], np.concatenate([part[1:] for part in parts]))
    cls = np.average([part[0] for part in parts], axis=0, weights=[128, 128, 24])
    np.testing.assert_allclose(found.features_BLTD[0, 0, 0], cls, rtol=1e-6)


def test_split_projections_give_the_same(trained: EAT, golden: dict[str, torch.Tensor]) -> None:
    encoder = EAT(trained.weights(), **trained.config())
    encoder.module.split_qkv()
    encoder.module.split_qkv()
    assert isinstance(encoder.module.blocks[0].attn.q_proj, torch.nn.Linear)
    with torch.inference_mode():
        (split,) = encoder.module(golden["waveform"])
        (fused,) = trained.module(golden["waveform"])
    assert (split - fused).abs().max() < 1e-6
    assert encoder.weights().keys() == trained.weights().keys()
    for name, array in encoder.weights().items():
        assert np.array_equal(array, trained.weights()[name])


def test_spikes() -> None:
    x = np.array([0, 0.0999, 0.1, 0.3, 0.5, 0.5001, 0.8, 50], dtype=np.float32)
    ours = suppress_spikes(np.stack([x, -x]))
    assert np.array_equal(ours[0], -ours[1])
    np.testing.assert_allclose(ours[0], [0, 0, 0.1, 0.3, 0.5, 0.5001, 0.5 * (1 + np.tanh(0.6)), 1], rtol=1e-6)
    steep = suppress_spikes(np.linspace(0.1, 5, 1000, dtype=np.float32))
    assert (np.diff(steep) >= 0).all()
    with pytest.raises(ValueError, match="not in order"):
        suppress_spikes(x, small=0.6)
    wave = noise(1, WINDOW + 20_000)
    plain, clamped = EAT(**TINY), EAT(**TINY, clamp=True)
    expected = suppress_spikes(plain.encode(wave).features_BLTD)
    # CLS is averaged over the windows after the suppression.
    np.testing.assert_array_equal(clamped.encode(wave).features_BLTD[:, :, 1:], expected[:, :, 1:])


def test_module_can_be_trained(trained: EAT) -> None:
    encoder = EAT(trained.weights(), **trained.config())
    net = encoder.module
    suite.check_everything_learns(net, RATE, (LAST, "target_3"))
    # Only some patches, as pre-training shows the student.
    patches = net.embed(net.spectrogram(torch.from_numpy(noise(2, RATE))))[:, ::5]
    (seen,) = net.encode_patches(patches)
    assert seen.shape == (2, 1 + 26, 96)
    suite.check_front_end_keeps_precision(net, net.spectrogram)


def test_refusals(tiny: EAT) -> None:
    with pytest.raises(ValueError, match="no layer block_9"):
        tiny.module(torch.zeros(1, RATE), ("block_9",))
    assert tiny.min_samples == 2_800
    for wrong in ({"heads": 5}, {"depth": 0}, {"width": 6, "heads": 3}, {"target_frames": 250}, {"target_frames": 0}):
        with pytest.raises(ValueError):
            EAT(**{**TINY, **wrong})

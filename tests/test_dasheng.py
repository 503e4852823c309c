"""Dasheng: the reference implementation's outputs, official files of every kind, chunks, the contract."""

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
from harken.encoders.dasheng import TINY, Dasheng, DashengNet, mel_filters, token_count

RATE = 16_000
COUNT = "init_bn.1.num_batches_tracked"
#: samples whose tokens fill one chunk
CHUNK = 252 * 640
folder = suite.folder


@pytest.fixture(scope="module")
def tiny() -> Dasheng:
    return Dasheng(**TINY, seed=0)


@pytest.fixture(scope="module")
def golden(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "dasheng_tiny_io.safetensors")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Dasheng:
    found = Dasheng.read_checkpoint(*official(folder / "dasheng_tiny.pt"))
    assert found is not None
    config, weights = found
    assert config == TINY
    return Dasheng(weights, **config)


def test_equals_the_reference(trained: Dasheng, golden: dict[str, torch.Tensor]) -> None:
    with torch.inference_mode():
        spectrogram = trained.module.spectrogram(golden["waveform"])
    assert spectrogram.shape == (1, 64, 205)
    assert (spectrogram - golden["spectrogram"][:, 0]).abs().max() < 5e-5
    found = trained.encode(golden["waveform"].numpy())
    assert found.lengths_B.tolist() == [51]
    np.testing.assert_allclose(found.features_BLTD[:, 0], golden["features"], atol=1e-5)
    # 12 s do not fit one chunk.
    found = trained.encode(golden["waveform_12s"].numpy())
    assert found.lengths_B.tolist() == [300]
    np.testing.assert_allclose(found.features_BLTD[:, 0], golden["features_12s"], atol=1e-5)


def test_mel_filters_equal_the_stored_ones(folder: Path) -> None:
    tensors, _ = official(folder / "dasheng_tiny.pt")
    np.testing.assert_allclose(mel_filters().T, tensors["front_end.0.mel_scale.fb"], atol=1e-5)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "count"),
    [(768, 12, 12, 85_447_808), (1280, 32, 16, 630_333_568), (1536, 40, 24, 1_134_047_360)],
)
def test_published_sizes(width: int, depth: int, heads: int, count: int) -> None:
    # Positions of 252 times and one frequency; convolution with bias, norm; batch norm; a block has 12 D^2 of
    # weights and 13 D of biases and norms. The batch norm's statistics are no parameters.
    assert count == (252 + 1 + 256 + 1 + 2) * width + 2 * 64 + depth * (12 * width**2 + 13 * width)
    with torch.device("meta"):
        net = DashengNet(width, depth, heads)
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    # The published files have the front end's window and filters besides.
    assert len(Dasheng.tensor_shapes(width=width, depth=depth, heads=heads)) == 12 * depth + 11


def test_reads_every_kind_of_official_file(folder: Path, trained: Dasheng) -> None:
    tensors, about = official(folder / "dasheng_tiny.pt")
    weights = trained.weights()
    assert len(tensors) == 12 * 3 + 13
    hub = {f"encoder.{name}": array for name, array in tensors.items() if name != COUNT}
    hub |= {"outputlayer.0.weight": np.ones(96), "decoder.norm.weight": np.ones(5)}
    classifier = tensors | {"outputlayer.weight": np.ones((5, 96))}
    half = {name: array.astype(np.float16) for name, array in tensors.items()}
    front = {"n_fft": 512, "hop_size": 160, "win_size": 512, "n_mels": 64, "f_max": 8000, "center": True}
    files = (
        (tensors, about),
        (hub, {"encoder_kwargs": {"num_heads": 4, "target_length": 1012}}),
        (classifier, {"config": {"num_heads": 4, **front}}),
        (weights, {"num_heads": 4}),
        (half, about),
    )
    assert weights[COUNT].dtype == np.int64
    suite.check_reads(Dasheng.read_checkpoint, files, TINY, weights)


@pytest.mark.parametrize(("width", "heads"), [(128, 2), (1280, 16)])
def test_sizes_without_a_configuration(width: int, heads: int) -> None:
    encoder = Dasheng(width=width, depth=1, heads=heads)
    found = Dasheng.read_checkpoint(encoder.weights(), {})
    assert found is not None
    assert found[0] == {"width": width, "depth": 1, "heads": heads}


def test_positions_of_another_length(folder: Path) -> None:
    tensors, about = official(folder / "dasheng_tiny.pt")
    table = tensors["time_pos_embed"]
    # As files for 1012 frames have it.
    longer = Dasheng.read_checkpoint(
        tensors | {"time_pos_embed": np.concatenate([table, table[..., :1]], axis=3)}, about
    )
    assert longer is not None
    assert np.array_equal(longer[1]["time_pos_embed"], table)
    ramp = np.broadcast_to(np.arange(126, dtype=np.float32), (1, 96, 1, 126))
    shorter = Dasheng.read_checkpoint(tensors | {"time_pos_embed": ramp}, about)
    assert shorter is not None
    expected = np.clip((np.arange(252) + 0.5) / 2 - 0.5, 0, 125)
    np.testing.assert_allclose(shorter[1]["time_pos_embed"][0, 5, 0], expected, atol=1e-5)


def test_damaged_files_are_refused(folder: Path) -> None:
    tensors, about = official(folder / "dasheng_tiny.pt")
    positions = ("time_pos_embed", "freq_pos_embed")
    needed = ("norm.weight", "norm.bias", *positions, "init_bn.1.running_var", "patch_embed.proj.weight")
    unknown = ("cls_token", "token_pos_embed", "blocks.0.ls1.gamma")
    # Shorter tables of positions are stretched, but not those of nothing.
    suite.check_damage_is_refused(
        Dasheng.read_checkpoint, tensors, about, needed=needed, count=47, unknown=unknown, narrow=0
    )
    for config in ({}, {"num_heads": 5}, {"num_heads": 4.0}):
        with pytest.raises(WeightsError, match="do not fit"):
            Dasheng.read_checkpoint(tensors, {"config": config})
    with pytest.raises(WeightsError, match="hop_size 320, which no published"):
        Dasheng.read_checkpoint(tensors, {"config": {"num_heads": 4, "hop_size": 320}})
    # Several patches above one another are another architecture, of the same names.
    assert Dasheng.read_checkpoint(tensors | {"freq_pos_embed": np.ones((1, 96, 4, 1))}, about) is None


def test_layers(tiny: Dasheng) -> None:
    assert tiny.layers == ("patches", "block_1", "block_2", "block_3", "norm")
    assert tiny.default_layer == "norm"
    features_BLTD = suite.check_layers(tiny, RATE, (25, 96))
    with torch.inference_mode():
        normed = tiny.module.norm(torch.from_numpy(features_BLTD[:, 3]))
    np.testing.assert_allclose(normed, features_BLTD[:, 4], atol=1e-5)


def test_the_range_is_of_each_clip(tiny: Dasheng) -> None:
    # A tone of full scale is far more than 120 dB above the silence beside it.
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    tone[RATE // 2 :] = 0
    quiet = 1e-4 * noise(1, RATE)[0]
    with torch.inference_mode():
        loud_MF, quiet_MF = tiny.module.spectrogram(torch.from_numpy(np.stack([tone, quiet])))
        (alone_MF,) = tiny.module.spectrogram(torch.from_numpy(quiet[None]))
    assert loud_MF.max() - loud_MF.min() == pytest.approx(120, abs=0.01)
    assert torch.equal(quiet_MF, alone_MF)


def test_padding_does_not_matter(tiny: Dasheng) -> None:
    wave = torch.from_numpy(noise(5, CHUNK + 20_000, seed=1))
    # Loud padding, which neither the range nor the mirrored edge may take from.
    lengths = torch.tensor([CHUNK + 20_000, CHUNK + 999, CHUNK, 12_345, 480])
    for index, length in enumerate(lengths.tolist()):
        wave[index, length:] *= 1e4
    with torch.inference_mode():
        together = tiny.module(wave, ("patches", "block_2", "norm"), lengths)
        for index, length in enumerate(lengths.tolist()):
            alone = tiny.module(wave[index : index + 1, :length], ("patches", "block_2", "norm"))
            for ours, theirs in zip(together, alone, strict=True):
                scale = theirs.abs().max().clamp_min(1)
                np.testing.assert_allclose(ours[index, : theirs.shape[1]] / scale, theirs[0] / scale, atol=1e-5)
        (short,) = tiny.module(wave, lengths_B=torch.tensor([RATE, 479, 100, 1, 0]))
    assert all(layer.isfinite().all() for layer in (*together, short))


@settings(max_examples=15)
@given(samples=st.integers(480, 3 * RATE))
def test_any_length(tiny: Dasheng, samples: int) -> None:
    found = tiny.encode(noise(1, samples), layers=("patches",))
    assert found.features_BLTD.shape[2] == found.lengths_B[0] == token_count(samples) >= 1


@pytest.mark.parametrize("samples", [CHUNK - 161, CHUNK - 160, CHUNK + 479, CHUNK + 480, 2 * CHUNK, 2 * CHUNK + 12_345])
def test_chunks_follow_each_other(tiny: Dasheng, samples: int) -> None:
    wave = torch.from_numpy(noise(1, samples))
    net = tiny.module
    with torch.inference_mode():
        (found,) = net(wave)
        spectrogram = net.spectrogram(wave)
        stft = torch.stft(wave, 512, 160, window=torch.hann_window(512), return_complex=True)
        mel = torch.from_numpy(mel_filters()) @ stft.abs().square()
        patches = net.patch_embed["proj"](spectrogram[:, None])
        chunks = [net._encode(part, ("norm",), None)[0] for part in patches.split(252, dim=3)]
    assert found.shape == (1, tiny.frame_count(samples, "norm"), 96)
    assert tiny.passes(samples) == [(0, samples)]
    # Spectra are computed in stretches, which nobody can tell.
    whole = 10 * mel.clamp_min(1e-10).log10() / (1 + 1e-5) ** 0.5
    np.testing.assert_allclose(spectrogram, whole, atol=1e-3)
    np.testing.assert_allclose(found, torch.cat(chunks, dim=1), atol=1e-5)


def test_module_can_be_trained(trained: Dasheng) -> None:
    net = Dasheng(trained.weights(), **trained.config()).module
    suite.check_everything_learns(net, CHUNK + RATE, ("norm",))
    # In training the front end's batch norm moves with every call.
    suite.check_front_end_keeps_precision(net.eval(), net.spectrogram)


def test_refusals(tiny: Dasheng) -> None:
    with pytest.raises(ValueError, match="no layer block_9"):
        tiny.module(torch.zeros(1, RATE), ("block_9",))
    assert tiny.min_samples == 480
    with pytest.raises(ValueError, match="too short"):
        tiny.module(torch.zeros(1, 479))
    for wrong in ({"heads": 5}, {"depth": 0}, {"width": 0}):
        with pytest.raises(ValueError):
            Dasheng(**{**TINY, **wrong})

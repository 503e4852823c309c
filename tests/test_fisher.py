"""FISHER: the reference implementation's outputs, official files, sub-bands, windows, the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import encoder_suite as suite
from encoder_suite import Arrays, noise, official
from harken.core.errors import WeightsError
from harken.embeddings.embedder import Embedder, make_spec
from harken.encoders import eat
from harken.encoders.fisher import FISHER, TINY, FISHERNet, positions
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model

RATE = 16_000
LAST = "block_3"
IMAGE = "modality_encoders.IMAGE."
TABLE = "fixed_positional_encoder.positions"
ROWS = 6
#: samples of one window at 16 kHz, and of the part of it that the next one does not share
WINDOW, STEP = 1023 * 160 + 400, 1024 * 160
folder = suite.folder


@pytest.fixture(scope="module")
def tiny() -> FISHER:
    return FISHER(**TINY, seed=0)


@pytest.fixture(scope="module")
def golden(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "fisher_tiny_io.safetensors")


@pytest.fixture(scope="module")
def learned(folder: Path) -> tuple[dict[str, Any], Arrays]:
    found = FISHER.read_checkpoint(*official(folder / "fisher_tiny.pt"))
    assert found is not None
    assert found[0] == TINY
    return found


@pytest.mark.parametrize(("rate", "bands"), [(16_000, 2), (48_000, 6)])
def test_equals_the_reference(
    learned: tuple[dict[str, Any], Arrays], golden: dict[str, torch.Tensor], rate: int, bands: int
) -> None:
    config, weights = learned
    encoder = FISHER(weights, **config, sample_rate=rate)
    wave = golden[f"waveform_{rate}"][None]
    with torch.inference_mode():
        spectrogram = encoder.module.spectrogram(wave)
    theirs = golden[f"spectrogram_{rate}"][:, 0]
    assert spectrogram.shape == theirs.shape
    # The logarithm magnifies the mean's last digit, which depends on threads, where a bin is nearly empty.
    difference = (spectrogram - theirs).abs()
    assert difference[..., : 100 * bands].max() < 1e-4
    assert difference.mean() < 1e-6
    found = encoder.encode(wave.numpy())
    embedding = golden[f"embedding_{rate}"]
    assert found.features_BLTD.shape == (1, 1, 1 + ROWS * (theirs.shape[1] // 16), bands * 96)
    # The published embedding is CLS.
    np.testing.assert_allclose(found.features_BLTD[:, 0, 0], embedding, atol=1e-5)


def test_positions_equal_the_stored_table(folder: Path) -> None:
    tensors, _ = official(folder / "fisher_tiny.pt")
    np.testing.assert_allclose(positions(96), tensors[IMAGE + TABLE], atol=1e-5)


@pytest.mark.parametrize(
    ("width", "heads", "count"), [(768, 12, 90_169_344), (384, 6, 23_851_008), (192, 3, 6_617_088)]
)
def test_sizes(width: int, heads: int, count: int) -> None:
    # Fixed table; convolution with bias, CLS, norm; a block has 12 D^2 of weights and 13 D of biases and norms.
    assert count == 6400 * width + (256 + 1 + 1 + 2) * width + 12 * (12 * width**2 + 13 * width)
    shapes = FISHER.tensor_shapes(width=width, depth=12, heads=heads)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == count
    with torch.device("meta"):
        net = FISHERNet(width, 12, heads)
    assert sum(parameter.numel() for parameter in net.parameters()) == count - 6400 * width


def test_reads_every_kind_of_official_file(folder: Path, learned: tuple[dict[str, Any], Arrays]) -> None:
    tensors, about = official(folder / "fisher_tiny.pt")
    _, weights = learned
    hub = {f"model.{name}": array for name, array in tensors.items()}
    half = {name: array.astype(np.float16) for name, array in tensors.items()}
    files = (
        (tensors, about),
        (hub, {"num_heads": 4, "band_width": 100}),
        (weights, {"num_heads": 4}),
        (half, {"cfg": {"model": {"num_heads": 4, "modalities": {"image": {"flatten": "freq"}}}}}),
    )
    suite.check_reads(FISHER.read_checkpoint, files, TINY, weights)
    # Converted weights tell themselves from EAT's, which have the same names but for the table.
    assert eat.EAT.read_checkpoint(weights, {}) is None
    encoder = FISHER(width=128, depth=1, heads=2)
    found = FISHER.read_checkpoint(encoder.weights(), {})
    assert found is not None
    assert found[0] == {"width": 128, "depth": 1, "heads": 2}


def test_damaged_files_are_refused(folder: Path) -> None:
    tensors, about = official(folder / "fisher_tiny.pt")
    norm, proj = IMAGE + "context_encoder.norm.weight", IMAGE + "local_encoder.proj.weight"
    blocks = ("blocks.1.attn.qkv.weight", "blocks.2.mlp.fc2.bias")
    needed = (norm, proj, IMAGE + TABLE, IMAGE + "extra_tokens", *blocks)
    unknown = (IMAGE + "context_encoder.blocks.0.norm1.weight", "norm.weight", IMAGE + "alibi_scale")
    suite.check_damage_is_refused(FISHER.read_checkpoint, tensors, about, needed=needed, count=42, unknown=unknown)
    with pytest.raises(WeightsError, match="128 times by 50"):
        FISHER.read_checkpoint(tensors | {IMAGE + TABLE: tensors[IMAGE + TABLE] + 0.01}, about)
    for wrong in ({"band_width": 50}, {"flatten": "time"}):
        with pytest.raises(WeightsError, match="no published one"):
            FISHER.read_checkpoint(tensors, {"cfg": {"model": {"num_heads": 4, **wrong}}})
    for heads in (None, 5, 4.0):
        with pytest.raises(WeightsError, match="do not fit"):
            FISHER.read_checkpoint(tensors, {"cfg": {"model": {"num_heads": heads}}})


def test_layers(tiny: FISHER) -> None:
    pairs = [name for number in (1, 2, 3) for name in (f"block_{number}", f"target_{number}")]
    assert tiny.layers == ("patches", *pairs)
    assert tiny.default_layer == LAST
    suite.check_layers(tiny, RATE, (1 + ROWS * 6, 2 * 96))


def test_tokens_run_by_time_then_frequency(tiny: FISHER) -> None:
    net = tiny.module
    spectrogram = torch.zeros(2, 100, 201)
    changed = spectrogram.clone()
    # The second clip's upper sub-band, fourth time, second row of patches; and what no patch covers.
    changed[1, 3 * 16, 100 + 16] = 1
    changed[:, 96:] = changed[:, :, 96:100] = changed[:, :, 196:] = 5
    with torch.inference_mode():
        moved = (net.embed(changed) != net.embed(spectrogram)).any(dim=2)
    assert moved.nonzero().tolist() == [[3, 3 * ROWS + 1]]


@pytest.mark.parametrize(("rate", "bands"), [(4_000, 1), (8_000, 1), (22_050, 2), (44_100, 5), (96_000, 12)])
def test_any_sampling_rate(tiny: FISHER, rate: int, bands: int) -> None:
    encoder = FISHER(tiny.weights(), **TINY, sample_rate=rate)
    found = encoder.encode(noise(1, rate // 2))
    assert found.features_BLTD.shape == (1, 1, encoder.frame_count(rate // 2, LAST), bands * 96)
    assert found.features_BLTD.shape[2] == 1 + ROWS * 3


def test_a_sub_band_hears_nothing_of_the_others(tiny: FISHER) -> None:
    low = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)[None].astype(np.float32)
    high = np.sin(2 * np.pi * 6000 * np.arange(RATE) / RATE)[None].astype(np.float32)
    net = tiny.module
    with torch.inference_mode():
        one, two = (net.spectrogram(torch.from_numpy(wave + noise(1, RATE))) for wave in (low, low + high))
        two[..., :100] = one[..., :100]
        alone, both = net.embed(one), net.embed(two)
        (alone,), (both,) = net.encode_patches(alone), net.encode_patches(both)
    assert torch.equal(alone[0], both[0])
    assert not torch.equal(alone[1], both[1])


def test_padding_does_not_matter(tiny: FISHER) -> None:
    wave = torch.from_numpy(noise(4, 30_000, seed=1)) + 0.05
    lengths = torch.tensor([30_000, 12_345, 2_800, 29_999])
    with torch.inference_mode():
        together = tiny.module(wave, ("patches", LAST), lengths)
        for index, length in enumerate(lengths.tolist()):
            alone = tiny.module(wave[index : index + 1, :length], ("patches", LAST))
            for ours, theirs in zip(together, alone, strict=True):
                np.testing.assert_allclose(ours[index, : theirs.shape[1]], theirs[0], atol=1e-5)
        # Less than a patch, and nothing at all, are no failure beside other clips.
        (short,) = tiny.module(wave, lengths_B=torch.tensor([30_000, 2_799, 100, 0]))
    assert short.isfinite().all()


@settings(max_examples=15)
@given(samples=st.integers(2_800, 3 * RATE))
def test_any_length(tiny: FISHER, samples: int) -> None:
    found = tiny.encode(noise(1, samples), layers=("patches",))
    assert found.features_BLTD.shape[2] == found.lengths_B[0] == tiny.frame_count(samples, "patches")


@given(seconds=st.floats(0.2, 100), rate=st.sampled_from([8_000, 16_000, 22_050, 48_000]))
def test_windows_follow_each_other(seconds: float, rate: int) -> None:
    encoder = FISHER(width=8, depth=1, heads=1, sample_rate=rate)
    frame, hop = rate * 25 // 1000, rate // 100
    samples = int(seconds * rate)
    passes = encoder.passes(samples)
    frames = 1 + (samples - frame) // hop
    counts = [1 + (stop - start - frame) // hop for start, stop in passes]
    assert passes[0][0] == 0
    assert set(counts[:-1]) <= {1024}
    assert len(counts) == 1 or 16 <= counts[-1] <= 1024
    assert 0 <= frames - sum(counts) < 16
    for start, stop in passes:
        assert encoder.passes(stop - start) == [(0, stop - start)]
    assert encoder.frame_count(samples, LAST) == 1 + ROWS * sum(count // 16 for count in counts)


def test_one_cls_for_several_windows(tiny: FISHER) -> None:
    wave = noise(1, STEP + 8_000)
    bounds = tiny.passes(wave.shape[1])
    assert bounds == [(0, WINDOW), (STEP, STEP + 8_000)]
    found = tiny.encode(wave)
    parts = [tiny.encode(wave[:, start:stop]).features_BLTD[0, 0] for start, stop in bounds]
    assert [len(part) for part in parts] == [1 + ROWS * 64, 1 + ROWS * 3]
    assert np.array_equal(found.features_BLTD[0, 0, 1:], np.concatenate([part[1:] for part in parts]))
    cls = np.average([part[0] for part in parts], axis=0, weights=[64, 3])
    np.testing.assert_allclose(found.features_BLTD[0, 0, 0], cls, rtol=1e-5)
    # The network by itself looks at the first window only, less the mean of all.
    with torch.inference_mode():
        spectrogram = tiny.module.spectrogram(torch.from_numpy(wave + 0.5))
    assert spectrogram.shape[1] == 1024


def test_module_can_be_trained(tiny: FISHER) -> None:
    net = FISHER(tiny.weights(), **tiny.config()).module
    suite.check_everything_learns(net, RATE, (LAST,))
    suite.check_front_end_keeps_precision(net, net.spectrogram)


def test_rebuilds_with_its_sampling_rate() -> None:
    encoder = FISHER(**TINY, sample_rate=8_000, seed=4)
    rebuilt = FISHER(encoder.weights(), **encoder.config())
    assert rebuilt.sample_rate == 8_000
    assert np.array_equal(rebuilt.encode(noise(1, RATE)).features_BLTD, encoder.encode(noise(1, RATE)).features_BLTD)


def test_refusals(tiny: FISHER) -> None:
    with pytest.raises(ValueError, match="no layer block_9"):
        tiny.module(torch.zeros(1, RATE), ("block_9",))
    assert tiny.min_samples == 2_800
    with pytest.raises(ValueError, match="too short"):
        tiny.module(torch.zeros(1, 2_799))
    for wrong in ({"heads": 5}, {"depth": 0}, {"width": 6, "heads": 3}, {"sample_rate": 99}):
        with pytest.raises(ValueError):
            FISHER(**{**TINY, **wrong})


def test_recordings_of_any_rate_are_heard_at_their_rate() -> None:
    """A detector's spec, and a network to be trained: more sub-bands of 4 kHz at 32 kHz than at 16."""
    weights = FISHER(**TINY).weights()
    for rate, bands in ((16_000, 2), (32_000, 4)):
        spec = make_spec("fisher", sample_rate=rate, channels=1, config=TINY, weights=weights)
        assert spec.config["sample_rate"] == rate
        vector = Embedder(spec, weights).embed(noise(1, rate))
        assert vector.shape == (TINY["width"] * bands,)
        branch = {"encoder": "fisher", "size": "tiny", "config": {"sample_rate": rate}, "head": {"kind": "mean"}}
        model = build_model(ModelSpec.model_validate({"branches": [branch]}))
        assert (model.sample_rate, model.embedding_dim) == (rate, TINY["width"] * bands)

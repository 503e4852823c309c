"""Kaldi's filter bank against stored torchaudio features and against the Kaldi binding."""

from __future__ import annotations

from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from harken.audio.kaldi_fbank import (
    beats_fbank,
    eat_fbank,
    kaldi_fbank,
    kaldi_frame_count,
    kaldi_mel_filters,
)


def reference(samples: np.ndarray, window: str, snip_edges: bool, num_mels: int) -> np.ndarray:
    """(samples,) -> (frames, num_mels) by kaldi_native_fbank."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = 16_000
    options.frame_opts.window_type = window
    options.frame_opts.snip_edges = snip_edges
    options.mel_opts.num_bins = num_mels
    options.mel_opts.low_freq = 20
    options.mel_opts.high_freq = 0
    options.use_energy = False
    options.energy_floor = 0
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(16_000, samples)
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


@pytest.mark.parametrize(("name", "preset"), [("beats", beats_fbank), ("eat", eat_fbank)])
def test_presets_agree_with_torchaudio(shared: Path, name: str, preset: object) -> None:
    golden = load_file(shared / "golden" / "encoders" / "kaldi_fbank.safetensors")
    error = (preset(golden["waveform"]) - golden[name]).abs()  # type: ignore[operator]
    assert error.max() < 1e-3
    assert error.mean() < 1e-5


@settings(max_examples=30, deadline=None)
@given(
    samples=st.integers(400, 20_000),
    window=st.sampled_from(["povey", "hanning"]),
    snip_edges=st.booleans(),
    num_mels=st.sampled_from([23, 80, 128]),
    seed=st.integers(0, 1000),
)
def test_agrees_with_kaldi(samples: int, window: str, snip_edges: bool, num_mels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    waveform = rng.normal(scale=0.1, size=(2, samples)).astype(np.float32)
    ours = kaldi_fbank(
        torch.from_numpy(waveform),
        window=window,  # type: ignore[arg-type]
        snip_edges=snip_edges,
        num_mels=num_mels,
    ).numpy()
    theirs = np.stack([reference(clip, window, snip_edges, num_mels) for clip in waveform])
    assert ours.shape == theirs.shape
    assert ours.shape[1] == kaldi_frame_count(samples, 400, 160, snip_edges=snip_edges)
    assert np.abs(ours - theirs).max() < 5e-3  # a band near silence: float32 there has few digits
    assert np.abs(ours - theirs).mean() < 3e-5


def test_empty_filter_reads_the_floor() -> None:
    # With 128 bands from 20 Hz over 31.25 Hz bins, band 3 catches no bin; trained models expect that.
    assert not kaldi_mel_filters(128, 512, 16_000, 20.0, 0.0)[:, 3].any()
    features = kaldi_fbank(torch.randn(1, 1600))
    assert torch.allclose(features[0, :, 3], torch.tensor(-15.942385))


def test_a_tone_is_in_its_band() -> None:
    time = torch.arange(16_000) / 16_000
    features = kaldi_fbank(torch.sin(2 * torch.pi * 1000 * time)[None], num_mels=80)
    edges = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(8000 / 700), 82)
    nearest = np.abs(edges[1:-1] - 1127 * np.log1p(1000 / 700)).argmin()
    assert (features[0].argmax(dim=1) == int(nearest)).all()


def test_scale_shifts_the_logarithm() -> None:
    wave = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    shift = kaldi_fbank(wave, scale=8.0, num_mels=40) - kaldi_fbank(wave, num_mels=40)
    assert torch.allclose(shift, torch.full_like(shift, 2 * np.log(8.0)), atol=1e-4)


def test_gradients() -> None:
    wave = torch.randn(2, 900, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wave.requires_grad_(True)

    def function(waveform: torch.Tensor) -> torch.Tensor:
        return kaldi_fbank(waveform, num_mels=20)

    assert torch.autograd.gradcheck(function, wave, fast_mode=True)


def test_batch_equals_single() -> None:
    wave = torch.randn(3, 5000, generator=torch.Generator().manual_seed(2))
    batch = kaldi_fbank(wave)
    for index in range(3):
        assert torch.allclose(batch[index], kaldi_fbank(wave[index : index + 1])[0], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"high_hz": 9000.0}, "do not fit"),
        ({"low_hz": 500.0, "high_hz": 400.0}, "do not fit"),
        ({"window": "hamming"}, "unknown window"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kaldi_fbank(torch.zeros(1, 1000), **options)  # type: ignore[arg-type]


def test_too_short() -> None:
    with pytest.raises(ValueError, match="too short"):
        kaldi_fbank(torch.zeros(1, 399))

"""Clips become latents and come back with their length, rate and level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harken.audio.listen import normalised
from harken.audio.moments import level_dbfs
from harken.audio.resample import resample
from harken.core.errors import HarkenError
from harken.generation.config import SIZES, OobleckConfig, TangoFluxConfig, TextConfig
from harken.generation.latents import SoundCodec

#: the strides of the published autoencoder, and few channels
OOBLECK = TangoFluxConfig(
    layers=1, single_layers=1, heads=1, channels=4, latents=80, seconds=80.9 * 2048 / 44_100,
    text=TextConfig(tokens="bytes", vocabulary=384, width=8, head_width=4, hidden=8, layers=1, heads=1),
    autoencoder=OobleckConfig(multiples=(1, 1, 1, 1, 1), width=4),
)  # fmt: skip


def sound(seconds: float, rate: int = 16_000) -> NDArray[np.float32]:
    time_S = np.arange(round(seconds * rate)) / rate
    noise_S = np.random.default_rng(0).normal(size=len(time_S))
    return (0.02 * np.sin(2 * np.pi * 440 * time_S) + 0.002 * noise_S).astype(np.float32)


@pytest.mark.parametrize(("seconds", "rate"), [(0.5, 16_000), (2.0, 16_000), (1.0, 22_050), (11.03, 8_000)])
def test_latents_without_weights_give_the_clip_back(seconds: float, rate: int) -> None:
    codec = SoundCodec(SIZES["tiny"])
    wave_S = sound(seconds, rate)
    latents_TD = codec.encode(wave_S, rate)
    assert latents_TD.shape == (1500, 128)
    assert 0.5 < latents_TD[: int(seconds * 125)].std() < 2
    back_S = codec.decode(torch.from_numpy(latents_TD), len(wave_S), rate, level_dbfs(wave_S[None]))
    assert len(back_S) == len(wave_S)
    # Resampling takes off what is next to half the rate.
    assert np.sqrt(np.mean((back_S - wave_S) ** 2)) < 0.1 * wave_S.std()


def test_a_long_clip_is_cut() -> None:
    codec = SoundCodec(SIZES["tiny"])
    latents_TD = codec.encode(sound(60.0), 16_000)
    assert len(latents_TD) == 1500
    assert len(codec.decode(torch.from_numpy(latents_TD), 16_000 * 60, 16_000, -20.0)) == 16_000 * 60


def test_silence_is_no_clip() -> None:
    with pytest.raises(HarkenError, match="nothing but silence"):
        SoundCodec(SIZES["tiny"]).encode(np.zeros(1000, np.float32), 16_000)


def test_clip_and_silence_after_it_are_encoded_as_if_together() -> None:
    torch.manual_seed(0)
    codec = SoundCodec(OOBLECK)
    wave_S = sound(0.7)
    apart_TD = codec.encode(wave_S, 16_000)
    longest = round(OOBLECK.seconds * 16_000)
    whole_TD = _encoded_whole(codec, wave_S)
    assert apart_TD.shape == whole_TD.shape == (80, 4)
    np.testing.assert_allclose(apart_TD, whole_TD, atol=2e-5)
    # The same is true of its sound.
    latents_TD = torch.from_numpy(apart_TD)
    long_S = codec.decode(latents_TD, longest, 16_000, -20.0)
    short_S = codec.decode(latents_TD, len(wave_S), 16_000, level_dbfs(long_S[None, : len(wave_S)]))
    np.testing.assert_allclose(short_S[:-50], long_S[: len(wave_S) - 50], atol=1e-4)


def _encoded_whole(codec: SoundCodec, wave_S: NDArray[np.float32]) -> NDArray[np.float32]:
    """Latents of the clip, at the level that it has alone, and of all the silence."""
    heard_S = resample(normalised(wave_S[None]), 16_000, 44_100)[0]
    padded_S = np.pad(heard_S, (0, round(OOBLECK.seconds * 44_100) - len(heard_S)))
    return codec.autoencoder.latents(torch.from_numpy(padded_S)).numpy()

"""Decoding under limits, resampling, cropping, STFT, mixing."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import hum
from harken.audio.decode import ALL_FORMATS, Limits, decode
from harken.audio.mix import mix_at_snr, power
from harken.audio.resample import resample
from harken.audio.shape import fit_length, windows
from harken.audio.stft import frame_count, mel_bands, power_spectrogram
from harken.core.errors import AudioError


def write(path: Path, samples: np.ndarray, rate: int = 16_000, **options: str) -> Path:
    sf.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_24")])
def test_decoding_gives_back_what_was_written(tmp_path: Path, suffix: str, subtype: str) -> None:
    sound = np.stack([hum(1), hum(2)], axis=1)
    audio = decode(write(tmp_path / f"a.{suffix}", sound, subtype=subtype))
    assert audio.samples_CS.shape == (2, 16_000)
    assert audio.samples_CS.dtype == np.float32
    np.testing.assert_allclose(audio.samples_CS, sound.T, atol=2**-15)
    assert audio.roles == ("near", "far")
    np.testing.assert_array_equal(audio.channel("far"), audio.samples_CS[1])


def test_other_formats_on_request_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", hum(1))
    with pytest.raises(AudioError, match="not read by default"):
        decode(path)
    assert decode(path, formats=ALL_FORMATS).sample_rate == 16_000


def wav_bytes(samples: int, *, claimed_bytes: int, channels: int = 1, rate: int = 16_000) -> bytes:
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", (36 + claimed_bytes) & 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1,
                         channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2, 16, b"data",
                         claimed_bytes & 0xFFFFFFFF)  # fmt: skip
    return header + b"\1\2" * samples * channels


def test_lying_headers_are_bounded_by_the_data() -> None:
    endless = decode(wav_bytes(8_000, claimed_bytes=0xFFFFFFFF))
    assert endless.samples_CS.shape == (1, 8_000)
    huge = decode(wav_bytes(8_000, claimed_bytes=2**31))
    assert huge.samples_CS.shape == (1, 8_000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not audio at all", "cannot be decoded"),
        (wav_bytes(0, claimed_bytes=0), "holds no samples"),
        (wav_bytes(100, claimed_bytes=200 * 9, channels=9), "9 channels"),
        (wav_bytes(100, claimed_bytes=200, rate=7), "sample rate"),
        (wav_bytes(32_100, claimed_bytes=64_200), "longer than 2 s"),
    ],
)
def test_bad_input_is_named_with_cause_and_next_step(data: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        decode(data, name="pump.wav", limits=Limits(seconds=2))
    assert caught.value.file == "pump.wav"
    assert caught.value.next_step


def test_decoded_size_is_limited() -> None:
    with pytest.raises(AudioError, match="MiB when decoded"):
        decode(wav_bytes(400_000, claimed_bytes=800_000), limits=Limits(decoded_bytes=2**20))


def test_paths_that_are_no_recordings(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    os.mkfifo(tmp_path / "pipe.wav")
    for name, message in [("empty.wav", "empty"), ("pipe.wav", "not a regular file"), ("none.wav", "no such file"),
                          (".", "not a regular file")]:  # fmt: skip
        with pytest.raises(AudioError, match=message):
            decode(tmp_path / name)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_wav_that_was_cut_off_is_refused(tmp_path: Path, subtype: str) -> None:
    data = write(tmp_path / "a.wav", hum(1, seconds=3), subtype=subtype).read_bytes()
    with pytest.raises(AudioError, match=r"is cut off: 1\.5"):
        decode(data[: len(data) // 2], name="a.wav")


def test_truncated_flac_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "a.flac", hum(1, seconds=3)).read_bytes()
    with pytest.raises(AudioError):
        decode(data[: len(data) // 2], name="a.flac")


def test_resampling_keeps_a_tone() -> None:
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)[None]
    up = resample(tone, 16_000, 32_000)
    assert up.shape == (1, 32_000)
    expected = np.sin(2 * np.pi * 440 * np.arange(32_000) / 32_000)
    np.testing.assert_allclose(up[0, 2_000:-2_000], expected[2_000:-2_000], atol=1e-3)
    assert resample(tone, 16_000, 16_000) is tone


@given(have=st.integers(1, 50), want=st.integers(1, 120), start=st.integers(0, 50))
def test_fit_length(have: int, want: int, start: int) -> None:
    samples = np.arange(2 * have, dtype=np.float32).reshape(2, have)
    if have >= want and start > have - want:
        with pytest.raises(ValueError, match="leaves less"):
            fit_length(samples, want, start=start)
        return
    tiled = fit_length(samples, want, short="tile", start=start)
    offset = start if have >= want else 0
    np.testing.assert_array_equal(tiled, samples[:, (offset + np.arange(want)) % have])
    if have < want:
        padded = fit_length(samples, want, short="pad")
        np.testing.assert_array_equal(padded[:, :have], samples)
        assert not padded[:, have:].any()


def test_power_spectrogram_is_the_discrete_fourier_transform() -> None:
    sound = hum(3, seconds=0.2)
    ours = power_spectrogram(sound, 256, 100)
    assert len(ours) == frame_count(len(sound), 256, 100)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    for frame in (0, 7, len(ours) - 1):
        piece = sound[frame * 100 : frame * 100 + 256] * window
        expected = np.abs(np.exp(-2j * np.pi * np.outer(np.arange(129), np.arange(256)) / 256) @ piece) ** 2
        np.testing.assert_allclose(ours[frame], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bands", [16, 128, 256])
def test_every_mel_band_hears_something_and_is_in_order(bands: int) -> None:
    filters, centres = mel_bands(16_000, 1024, bands, 0.0, 8_000.0)
    np.testing.assert_allclose(filters.sum(axis=0), 1.0, rtol=1e-5)
    assert (np.diff(centres) > 0).all()


@given(snr=st.floats(-20, 20), seed=st.integers(0, 100), length=st.integers(100, 30_000))
@settings(max_examples=30)
def test_mixing_reaches_the_snr_and_the_noise_can_be_recovered(snr: float, seed: int, length: int) -> None:
    signal = hum(seed)[None]
    noise = np.random.default_rng(seed).normal(size=(1, length)).astype(np.float32)
    mixture = mix_at_snr(signal, noise, snr)
    added = mixture - signal
    assert 10 * np.log10(power(signal) / power(added)) == pytest.approx(snr, abs=0.1)
    used = fit_length(noise, signal.shape[1])
    assert np.corrcoef(added[0], used[0])[0, 1] > 0.99


def test_mixing_silence_is_refused() -> None:
    with pytest.raises(ValueError, match="undefined"):
        mix_at_snr(np.zeros((1, 10), np.float32), np.ones((1, 10), np.float32), 0)


@given(st.integers(1, 60), st.integers(1, 60))
def test_windows_cover_everything(samples: int, span: int) -> None:
    if span > samples:
        with pytest.raises(ValueError, match=f"1 to {samples} samples, not {span}"):
            windows(samples, span)
        return
    found = windows(samples, span)
    assert {stop - start for start, stop in found} == {span}
    assert {place for part in found for place in range(*part)} == set(range(samples))
    assert len(found) == -(-samples // span)

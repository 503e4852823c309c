"""The log-mel of the DCASE baselines: against the real features, and against its definition written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from conftest import hum
from harken.audio.log_mel import FLOOR, log_mel, slaney_bands, slaney_hz, slaney_mel
from harken.encoders import create_encoder


def test_it_equals_the_features_that_librosa_made(shared: Path) -> None:
    """Ten clips of ToyCar id_04, frames 50..249, stored in half precision."""
    arrays = np.load(shared / "features" / "toycar_id04_logmel_f16.npz")
    number = {str(name): index for index, name in enumerate(arrays["name"])}
    files = [file for file in sorted((shared / "corpus/dcase2020/ToyCar").rglob("*.flac")) if file.stem in number]
    assert len(files) >= 10
    features = arrays["logmel"]
    for file in files:
        wave, rate = sf.read(file, dtype="float32")
        ours = log_mel(wave, rate)
        assert ours.shape == (344, 128)
        reference = features[number[file.stem]]
        rounding = np.spacing(np.abs(reference)).astype(np.float64) / 2
        assert (np.abs(ours[50:250] - reference.astype(np.float64)) <= rounding + 1e-4).all()


def test_it_equals_its_definition_written_out() -> None:
    """A discrete Fourier transform by its sum, filters and frames in loops."""
    rate, n_fft, hop, bands = 8000, 64, 24, 10
    wave = hum(0, 0.05, rate)[:300]
    edges = [slaney_hz(k * slaney_mel(rate / 2) / (bands + 1)) for k in range(bands + 2)]
    time = np.arange(n_fft)
    for power in (2.0, 1.0):
        ours = log_mel(wave, rate, n_fft, hop, bands, power)
        assert ours.shape == (1 + 300 // hop, bands)
        assert ours.dtype == np.float32
        for frame in range(len(ours)):
            piece = np.array([wave[t] if 0 <= t < 300 else 0.0 for t in frame * hop - n_fft // 2 + time])
            piece = piece * (0.5 - 0.5 * np.cos(2 * np.pi * time / n_fft))
            for band in range(bands):
                low, centre, high = edges[band : band + 3]
                total = 0.0
                for k in range(n_fft // 2 + 1):
                    hz = k * rate / n_fft
                    weight = max(0.0, min((hz - low) / (centre - low), (high - hz) / (high - centre)))
                    size = abs(np.sum(piece * np.exp(-2j * np.pi * k * time / n_fft)))
                    total += weight * 2 / (high - low) * size**power
                assert ours[frame, band] == pytest.approx(20 / power * np.log10(max(total, FLOOR)), abs=1e-4)


def test_slaneys_scale() -> None:
    np.testing.assert_allclose(slaney_mel([0, 200, 1000, 6400]), [0, 3, 15, 42])
    hz = np.array([1.0, 999.0, 1001.0, 20_000.0])
    np.testing.assert_allclose(slaney_hz(slaney_mel(hz)), hz)


def test_filters_have_unit_area() -> None:
    filters = slaney_bands(16_000, 1 << 16, 40)
    np.testing.assert_allclose(filters.sum(axis=0) * 16_000 / (1 << 16), 1, atol=1e-4)


def test_silence_is_the_floor() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(4000, np.float32), 16_000), 10 * np.log10(FLOOR))


def test_long_recordings_are_transformed_in_blocks() -> None:
    wave = hum(1, 2.0, 8000)
    whole = log_mel(wave, 8000, 64, 4)
    assert len(whole) > 2048
    np.testing.assert_array_equal(whole[3000:3100], log_mel(wave[4 * 2900 : 4 * 3200], 8000, 64, 4)[100:200])


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_what_is_no_waveform_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        log_mel(np.zeros(shape, np.float32), 16_000)


def test_the_encoder_gives_the_frames_of_each_clip_at_its_own_length() -> None:
    encoder = create_encoder("log_mel", {"sample_rate": 8000})
    waves = np.stack([hum(0, 1.0, 8000), hum(1, 1.0, 8000)])
    found = encoder.encode(waves, np.array([8000, 5000]))
    assert found.layers == ("log_mel",)
    assert found.features_BLTD.shape == (2, 1, 16, 128)
    assert found.features_BLTD.dtype == np.float32
    assert found.lengths_B.tolist() == [16, 10]
    np.testing.assert_array_equal(found.features_BLTD[1, 0, :10], log_mel(waves[1, :5000], 8000))
    assert not found.features_BLTD[1, 0, 10:].any()
    again = create_encoder("log_mel", encoder.config()).encode(waves[:1])
    np.testing.assert_array_equal(again.features_BLTD, found.features_BLTD[:1])


def test_the_encoder_refuses_what_it_cannot_encode() -> None:
    encoder = create_encoder("log_mel")
    with pytest.raises(ValueError, match="needs 1024 samples, not 1000"):
        encoder.encode(np.zeros((1, 1000), np.float32))
    with pytest.raises(ValueError, match="not mel"):
        encoder.encode(np.zeros((1, 2000), np.float32), layers=("mel",))
    with pytest.raises(ValueError, match="1000 Hz"):
        create_encoder("log_mel", {"hop": 2000})

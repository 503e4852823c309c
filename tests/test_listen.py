"""The one door for sound: files, bytes and arrays give one waveform; what is unusable is refused for everyone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from conftest import hum
from harken.audio.listen import NORMAL_LEVEL_DBFS, Listening, listen
from harken.audio.moments import level_dbfs
from harken.audio.resample import resample
from harken.audio.stft import power_spectrogram
from harken.audio.suffixes import ALL_SUFFIXES, DEFAULT_SUFFIXES
from harken.core.errors import AudioError
from harken.core.threads import one_thread, torch_threads
from harken.data.folders import find_recordings
from harken.data.index import index
from harken.data.names import without_suffix

RATE = 16_000


def write(path: Path, samples_CS: np.ndarray) -> Path:
    sf.write(path, samples_CS.T, RATE, subtype="FLOAT")
    return path


def test_a_file_its_bytes_and_its_samples_sound_the_same(tmp_path: Path) -> None:
    stereo_CS = np.stack([hum(1), hum(2)])
    file = write(tmp_path / "a.wav", stereo_CS)
    settings = Listening(microphones="near", level="normalised", sample_rate=8_000)
    sounds = [
        listen(file, settings),
        listen(file.read_bytes(), settings),
        listen(stereo_CS, settings, sample_rate=RATE),
        listen(stereo_CS.astype(np.float64), settings, sample_rate=RATE),
    ]
    for sound in sounds:
        np.testing.assert_array_equal(sound.wave_CS, sounds[0].wave_CS)
        assert sound.wave_CS.shape == (1, 8_000)
        assert sound.sample_rate == 8_000
        assert sound.seconds == 1.0
        assert sound.level_db == pytest.approx(level_dbfs(stereo_CS), abs=1e-3)
        assert sound.recorded.roles == ("near", "far")
    assert sounds[0].sha256 == sounds[1].sha256
    assert sounds[2].sha256 == sounds[3].sha256 != listen(stereo_CS, settings, sample_rate=22_050).sha256


def test_channels_then_mean_then_level_then_rate() -> None:
    stereo_CS = np.stack([hum(1), hum(2)])
    settings = Listening(mono=True, level="normalised", sample_rate=8_000)
    sound = listen(stereo_CS, settings, sample_rate=RATE)
    mean_CS = stereo_CS.mean(axis=0, keepdims=True, dtype=np.float32)
    levelled_CS = mean_CS * np.float32(10 ** ((NORMAL_LEVEL_DBFS - level_dbfs(mean_CS)) / 20))
    np.testing.assert_array_equal(sound.wave_CS, resample(levelled_CS, RATE, 8_000))
    as_recorded = listen(stereo_CS, sample_rate=RATE)
    np.testing.assert_array_equal(as_recorded.wave_CS, stereo_CS)
    np.testing.assert_array_equal(as_recorded.at(8_000), resample(stereo_CS, RATE, 8_000))


@pytest.mark.parametrize("offset", [0.02, -0.3, 20.0])
@pytest.mark.parametrize("level", ["normalised", "recorded"])
def test_an_offset_is_not_sound(offset: float, level: str) -> None:
    """Converters, and gravity in units of the vibration, add a constant that may be many times the sound."""
    settings = Listening(offset="removed", level=level)
    plain, shifted = (listen(hum(1) + np.float32(add), settings, sample_rate=RATE) for add in (0.0, offset))
    np.testing.assert_allclose(shifted.wave_CS, plain.wave_CS, atol=2e-4)
    assert shifted.level_db == pytest.approx(plain.level_db, abs=0.01)
    assert all(finding.harmless for finding in shifted.findings)
    with pytest.raises(AudioError, match="is silent"):
        listen(np.full(RATE, offset, np.float32), settings, sample_rate=RATE)


def test_the_small_mean_of_a_finite_recording_stays() -> None:
    sound_S = hum(1) - hum(1).mean()
    sound_S += np.float32(1e-3) * sound_S.std()
    sound = listen(sound_S, Listening(offset="removed"), sample_rate=RATE)
    np.testing.assert_array_equal(sound.wave_CS[0], sound_S)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_recordings_of_higher_rates_are_brought_down_with_level_bands(rate: int) -> None:
    """White noise stays white up to half the rate, and keeps its level per hertz; tones keep their places."""
    rng = np.random.default_rng(0)
    time_S = np.arange(2 * rate) / rate
    sound_S = (0.1 * rng.normal(size=2 * rate)).astype(np.float32)
    sound_S += np.sin(2 * np.pi * 1000 * time_S).astype(np.float32)
    sound = listen(sound_S, Listening(recorded_rate=RATE, higher_rates="resampled"), sample_rate=rate)
    assert sound.wave_CS.shape == (1, 2 * RATE)
    assert [finding.kind for finding in sound.findings] == ["higher rate"]
    assert sound.findings[0].harmless
    tone_S = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE)
    noise_S = sound.wave_CS[0] - tone_S
    power_TF = power_spectrogram(noise_S.astype(np.float32), 1024, 512)
    level_F = 10 * np.log10(power_TF.mean(axis=0))
    top = level_F[-32:].mean() - level_F[40:].mean()
    assert abs(top) < 1.5
    with pytest.raises(AudioError, match="above 4000 Hz is missing"):
        listen(hum(1), Listening(recorded_rate=RATE, higher_rates="resampled"), sample_rate=8_000)


def test_a_single_microphone_is_the_near_one_only_where_that_is_wanted() -> None:
    mono_S = hum(1)
    sound = listen(mono_S, Listening(microphones="cancelled", single_as_near=True), sample_rate=RATE)
    np.testing.assert_array_equal(sound.wave_CS, mono_S[None])
    with pytest.raises(AudioError, match="'cancelled' needs two, near and far"):
        listen(mono_S, Listening(microphones="cancelled"), sample_rate=RATE)


def test_defects_count_in_the_channels_that_are_listened_to() -> None:
    broken_CS = np.stack([hum(1), np.zeros(RATE, np.float32)])
    clipped_S = np.clip(hum(1) * 20, -0.5, 0.5).astype(np.float32)
    assert listen(broken_CS, Listening(microphones="near"), sample_rate=RATE).findings == ()
    with pytest.raises(AudioError, match="is silent in channel 1"):
        listen(broken_CS, sample_rate=RATE)
    assert [finding.kind for finding in listen(clipped_S, sample_rate=RATE).findings] == ["clipped"]


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (hum(1), 8_000, "was recorded at 8000 Hz, not at the expected 16000 Hz"),
        (np.stack([hum(1)] * 2), RATE, "has 2 channels, not the expected 1"),
        (hum(1)[:, None], RATE, "has 16000 channels, over the limit of 8"),
        ((hum(1) * 32767).astype(np.int16), RATE, "Pass floats"),
        (np.empty(0, np.float32), RATE, "holds no samples"),
        (np.full(RATE, np.nan, np.float32), RATE, "NaN or infinite"),
        (np.zeros(RATE * 601, np.float32), RATE, "longer than 600 s"),
        (hum(1), 3, "has a sample rate of 3 Hz"),
    ],
)
def test_arrays_of_another_form_are_refused(samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        listen(samples, Listening(recorded_rate=RATE, recorded_channels=1), sample_rate=rate, name="microphone")
    assert str(caught.value).startswith("microphone: ")


def test_samples_need_their_rate() -> None:
    with pytest.raises(ValueError, match="sample_rate"):
        listen(hum(1))


def test_there_is_one_list_of_audio_endings(tmp_path: Path) -> None:
    folder = tmp_path / "fan" / "train"
    folder.mkdir(parents=True)
    for number, suffix in enumerate(sorted(ALL_SUFFIXES)):
        (folder / f"section_00_source_train_normal_{number:04d}_v_1{suffix}").touch()
        assert without_suffix(f"a.b{suffix}") == without_suffix(f"a.b{suffix.upper()}") == "a.b"
    assert len(index(tmp_path)[0]) == len(find_recordings([tmp_path], ALL_SUFFIXES)) == len(ALL_SUFFIXES)
    assert len(find_recordings([tmp_path], DEFAULT_SUFFIXES)) == len(DEFAULT_SUFFIXES) == 5


def test_the_callers_threads_are_restored() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with torch_threads(3):
            assert torch.get_num_threads() == 3
            with one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_libraries_that_are_loaded_later_are_limited_too() -> None:
    """scikit-learn brings an OpenMP of its own, whose sums depend on the number of threads."""
    program = """
from harken.core.threads import one_thread
with one_thread():
    pass
import sklearn.cluster
from threadpoolctl import threadpool_info
with one_thread():
    print({library["num_threads"] for library in threadpool_info()})
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{1}"

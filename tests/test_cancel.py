"""Noise cancellation with a far microphone: what it gains, what it must leave alone, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import hum
from harken.audio.cancel import LEAST_WINDOWS, SHORTEST, cancel, subtract
from harken.audio.channels import choose_channels
from harken.audio.decode import decode
from harken.audio.listen import normalised
from harken.audio.stft import overlap_add, overlapped_stft
from harken.core.errors import AudioError, HarkenError
from harken.core.threads import one_thread
from harken.embeddings.embedder import Embedder, EmbeddingSpec, make_spec
from harken.embeddings.sketch import make_sketch
from harken.monitor.detector import Detector
from harken.plant import room

RATE = 16_000


def noise(seed: int, seconds: float = 4.0, rate: int = RATE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * rate)).astype(np.float32)


def snr_db(machine_S: np.ndarray, heard_S: np.ndarray) -> float:
    """Of a machine in a recording of it; whatever was lost of the machine counts as noise."""
    return float(10 * np.log10(np.mean(machine_S**2) / np.mean((heard_S - machine_S) ** 2)))


def shared_noise(rate: int = RATE, power: float = 2.0, leak: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A machine of power 1, and (2, T): it in noise of that power, which reaches the far one a millisecond later."""
    machine = hum(1, seconds=4, rate=rate)
    machine /= np.sqrt(np.mean(machine**2))
    hall = noise(2, rate=rate) * np.float32(np.sqrt(power))
    far = 0.8 * np.roll(hall, rate // 1000) + leak * machine
    return machine, np.stack([machine + hall, far]).astype(np.float32)


def in_room(leak: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The same in a hall of 0.35 s reverberation, noise 5 dB louder, with the machine 11 dB softer at the far one."""
    rng = np.random.default_rng(3)
    spare = int(room.RESPONSE_S * RATE)
    sound = hum(1, seconds=4 + room.RESPONSE_S)[: 4 * RATE + spare]
    near_R = room.response(room.NEAR_M, room.NEAR_DRR_DB, RATE, rng)
    far_R = room.response(room.FAR_M, room.FAR_DRR_DB, RATE, rng)
    machine = room.convolve(sound, np.stack([near_R, far_R * 10 ** (-room.FAR_LOSS_DB / 20)]))
    machine /= np.sqrt(np.mean(machine[0] ** 2))
    hall = room.convolve(noise(4, 4 + room.RESPONSE_S)[: len(sound)], room.diffuse_pair(RATE, rng))
    hall *= np.sqrt(10**0.5 / np.mean(hall[0] ** 2))
    machine[1] *= leak
    return machine[0], (machine + hall).astype(np.float32)


# --- STFT


@given(samples=st.integers(1, 3_000), half=st.integers(4, 300), blocks=st.sampled_from([2, 4]))
@settings(max_examples=60)
def test_the_inverse_transform_gives_the_samples_back(samples: int, half: int, blocks: int) -> None:
    n_fft, hop = half * blocks, half
    sound = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    spectrum = overlapped_stft(sound, n_fft, hop)
    assert spectrum.dtype == np.complex64
    back = overlap_add(spectrum, n_fft, hop, samples)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, sound, atol=2e-5)


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 64), (64, 48), (63, 21), (64, 0)])
def test_frames_that_do_not_add_up_are_refused(n_fft: int, hop: int) -> None:
    with pytest.raises(ValueError, match="do not add up"):
        overlapped_stft(noise(0, 0.1), n_fft, hop)


# --- what is gained


@pytest.mark.parametrize(("options", "gain_db"), [({}, 18.0), ({"window_seconds": 0.064}, 23.0), ({"taps": 3}, 15.0)])
def test_a_shared_noise_is_cancelled(options: dict[str, float], gain_db: float) -> None:
    machine, samples = shared_noise()
    cleaned = cancel(samples, RATE, **options)  # type: ignore[arg-type]
    assert cleaned.shape == (1, samples.shape[1])
    assert cleaned.dtype == np.float32
    assert snr_db(machine, cleaned[0]) - snr_db(machine, samples[0]) > gain_db


def test_in_a_room_a_long_window_or_taps_cancel_what_a_short_window_cannot() -> None:
    machine, samples = in_room()
    before = snr_db(machine, samples[0])
    assert before == pytest.approx(-5.0, abs=0.01)
    gain = {
        name: snr_db(machine, cancel(samples, RATE, **options)[0]) - before  # type: ignore[arg-type]
        for name, options in {
            "long": {},
            "short": {"window_seconds": 0.064},
            "short, taps": {"window_seconds": 0.064, "taps": 5},
        }.items()
    }
    assert gain["short"] > 1.8
    assert gain["short, taps"] > 4.0
    assert gain["long"] > 6.5


def test_the_limit_keeps_a_machine_that_reaches_the_far_microphone() -> None:
    machine, samples = shared_noise(power=0.02, leak=0.2)
    limited, free = (snr_db(machine, cancel(samples, RATE, limit_db=limit)[0]) for limit in (6.0, None))
    assert limited > free + 5


def test_subtraction_lowers_the_noise_without_a_phase() -> None:
    _, samples = shared_noise()
    rng = np.random.default_rng(0)
    only_noise = samples.copy()
    only_noise[0] = rng.standard_normal(samples.shape[1]).astype(np.float32) * samples[1].std()
    cleaned = subtract(only_noise, RATE)
    assert 10 * np.log10(np.mean(cleaned**2) / np.mean(only_noise[0] ** 2)) < -3
    untouched = subtract(only_noise, RATE, factor=0.0)
    np.testing.assert_allclose(untouched[0], only_noise[0], atol=1e-5)


# --- what is left alone


@pytest.mark.parametrize("step", [cancel, subtract])
def test_a_silent_far_microphone_changes_nothing(step: object) -> None:
    samples = np.stack([noise(0), np.zeros(4 * RATE, np.float32)])
    for length in (samples.shape[1], 1_000, 100, 1):
        cleaned = step(samples[:, :length], RATE)  # type: ignore[operator]
        np.testing.assert_array_equal(cleaned, samples[:1, :length])
    silence = np.zeros((2, RATE), np.float32)
    np.testing.assert_array_equal(step(silence, RATE), silence[:1])  # type: ignore[operator]


@pytest.mark.parametrize(("taps", "left_db"), [(1, -59.9), (3, -45.0)])
def test_identical_channels_leave_almost_nothing_and_never_fail(taps: int, left_db: float) -> None:
    for sound in (noise(0), hum(1, seconds=4), np.eye(1, 4 * RATE, 9_000, dtype=np.float32)[0]):
        left = cancel(np.stack([sound, sound]), RATE, taps=taps)
        assert np.isfinite(left).all()
        assert np.mean(left**2) < 10 ** (left_db / 10) * np.mean(sound**2)
        assert np.isfinite(subtract(np.stack([sound, sound]), RATE)).all()


def test_an_unrelated_far_microphone_takes_little() -> None:
    samples = np.stack([noise(0), noise(1)])
    lost_db = 10 * np.log10(np.mean(cancel(samples, RATE) ** 2) / np.mean(samples[0] ** 2))
    # Of k windows that determine a gain the fit takes about 1/k, with or without a common sound.
    assert -1.0 < lost_db < 0.0


@pytest.mark.parametrize("step", [cancel, subtract])
def test_loudness_does_not_matter(step: object) -> None:
    _, samples = shared_noise()
    cleaned = step(samples, RATE)  # type: ignore[operator]
    for scale in (2.0**-10, 2.0**6):
        scaled = step(samples * np.float32(scale), RATE)  # type: ignore[operator]
        np.testing.assert_allclose(scaled, cleaned * np.float32(scale), rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_array_equal(step(samples, RATE), cleaned)  # type: ignore[operator]


def test_it_is_linear_in_the_near_microphone_and_blind_to_the_gain_of_the_far_one() -> None:
    far = noise(5)
    one, other = noise(6) + far, hum(7, seconds=4)

    def cleaned(near: np.ndarray, gain: float = 1.0) -> np.ndarray:
        return cancel(np.stack([near, np.float32(gain) * far]), RATE, limit_db=None)[0]

    np.testing.assert_allclose(cleaned(one + 2 * other), cleaned(one) + 2 * cleaned(other), atol=1e-4)
    np.testing.assert_allclose(cleaned(one, gain=0.01), cleaned(one), atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
def test_any_sampling_rate_gains_alike(rate: int) -> None:
    machine, samples = shared_noise(rate)
    gain = snr_db(machine, cancel(samples, rate)[0]) - snr_db(machine, samples[0])
    assert gain > 17.0


@pytest.mark.parametrize("taps", [1, 3])
def test_short_recordings_are_judged_in_shorter_windows_or_left(taps: int) -> None:
    least = LEAST_WINDOWS * SHORTEST * taps
    for length in (1, least - 1, least, 1_000, 8_000):
        samples = np.stack([noise(0)[:length], noise(1)[:length]])
        cleaned = cancel(samples, RATE, taps=taps)
        assert cleaned.shape == (1, length)
        assert np.isfinite(cleaned).all()
        assert np.array_equal(cleaned[0], samples[0]) == (length < least)
        # Never fitted away: there are more windows than gains.
        assert np.mean(cleaned**2) > 0.3 * np.mean(samples[0] ** 2)


@pytest.mark.parametrize("shape", [(1, 100), (3, 100), (100,)])
def test_two_channels_are_needed(shape: tuple[int, ...]) -> None:
    for step in (cancel, subtract):
        with pytest.raises(ValueError, match="near and a far channel"):
            step(np.zeros(shape, np.float32), RATE)


def test_parameters_that_make_no_filter_are_refused() -> None:
    samples = np.zeros((2, 100), np.float32)
    for options in ({"taps": 0}, {"ridge": 0.0}, {"window_seconds": 0.0}):
        with pytest.raises(ValueError, match="positive"):
            cancel(samples, RATE, **options)  # type: ignore[arg-type]
    for options in ({"factor": -1.0}, {"floor": 2.0}, {"window_seconds": float("nan")}):
        with pytest.raises(ValueError, match="floor in"):
            subtract(samples, RATE, **options)


# --- as a step of embedding


def write(path: Path, samples_CS: np.ndarray) -> Path:
    sf.write(path, samples_CS.T, RATE, subtype="PCM_16")
    return path


def pair(seed: int, seconds: float = 1.0) -> np.ndarray:
    hall = 0.05 * noise(seed + 1_000, seconds)
    return np.stack([hum(seed, seconds=seconds) + hall, 0.9 * hall]).astype(np.float32)


def test_the_default_leaves_fingerprints_and_bundles_as_they_were() -> None:
    spec = make_spec("spectral", sample_rate=RATE, channels=1)
    # Computed before there was a choice of microphones.
    assert spec.fingerprint() == "95fc6f2918856a9f112b577c2c6691329658d0f71bad861d24f59f7b253217ee"
    assert "microphones" not in spec.model_dump()
    assert EmbeddingSpec(**spec.model_dump()) == spec
    other = make_spec("spectral", sample_rate=RATE, channels=2, microphones="cancelled")
    assert EmbeddingSpec(**other.model_dump()) == other
    kinds = ("all", "near", "far", "cancelled", "subtracted")
    assert len({other.model_copy(update={"microphones": kind}).fingerprint() for kind in kinds}) == 5


def test_embedding_and_sketch_are_of_the_same_sound(tmp_path: Path) -> None:
    data = write(tmp_path / "a.wav", pair(1)).read_bytes()
    found = {}
    for kind in ("all", "near", "far", "cancelled", "subtracted"):
        embedder = Embedder(make_spec("spectral", sample_rate=RATE, channels=2, microphones=kind))  # type: ignore[arg-type]
        found[kind] = embedder.analyse(data, "a.wav")
        raw_CS = decode(data).samples_CS
        with one_thread():
            heard_CS = normalised(choose_channels(raw_CS, RATE, kind))  # type: ignore[arg-type]
            np.testing.assert_array_equal(found[kind].embedding, embedder.embed(heard_CS))
            sketch = make_sketch(embedder.log_mel(heard_CS))
        np.testing.assert_array_equal(found[kind].sketch_BC, sketch)
    width = len(found["near"].embedding)
    assert len(found["all"].embedding) == 2 * width
    sketches = {kind: one.sketch_BC.tobytes() for kind, one in found.items()}
    assert len(set(sketches.values())) == 5
    assert len({one.level_db for one in found.values()}) == 1


@pytest.mark.parametrize("kind", ["far", "cancelled", "subtracted"])
def test_one_channel_is_refused_clearly(tmp_path: Path, kind: str) -> None:
    data = write(tmp_path / "a.wav", hum(1)[None]).read_bytes()
    embedder = Embedder(make_spec("spectral", sample_rate=RATE, channels=1, microphones=kind))  # type: ignore[arg-type]
    with pytest.raises(AudioError, match=rf"has 1 channel; '{kind}' needs two, near and far"):
        embedder.analyse(data, "a.wav")


def test_a_mono_recording_in_two_channels_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "a.wav", np.stack([hum(1), hum(1)])).read_bytes()
    embedder = Embedder(make_spec("spectral", sample_rate=RATE, channels=2, microphones="cancelled"))
    with pytest.raises(AudioError, match="the same sound in both channels"):
        embedder.analyse(data, "a.wav")


def test_a_broken_far_microphone_matters_only_to_those_who_listen_to_it(tmp_path: Path) -> None:
    data = write(tmp_path / "a.wav", np.stack([hum(1), np.zeros(RATE)])).read_bytes()
    Embedder(make_spec("spectral", sample_rate=RATE, channels=2, microphones="near")).analyse(data, "a.wav")
    with pytest.raises(AudioError, match="silent"):
        Embedder(make_spec("spectral", sample_rate=RATE, channels=2, microphones="cancelled")).analyse(data, "a.wav")


def test_a_model_remembers_its_microphones(tmp_path: Path) -> None:
    folder = tmp_path / "normal"
    folder.mkdir()
    files = [write(folder / f"{seed:02d}.wav", pair(seed)) for seed in range(6)]
    detector = Detector.fit(files, microphones="cancelled", workers=0)
    detector.save(tmp_path / "m.harken")
    again = Detector.load(tmp_path / "m.harken")
    assert again.spec.microphones == "cancelled"
    assert again.score(files[0]).score == detector.score(files[0]).score
    alone = write(tmp_path / "mono.wav", hum(9)[None])
    with pytest.raises(AudioError, match="has 1 channel"):
        again.score(alone)
    with pytest.raises(HarkenError, match="unknown microphones"):
        Detector.fit(files, microphones="both")  # type: ignore[arg-type]
    with pytest.raises(HarkenError, match="needs two, near and far"):
        Detector.fit([alone] * 3, microphones="cancelled", workers=0)

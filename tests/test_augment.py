"""Augmentation: each transform does to the sound what it says, and the same whoever computes it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.utils.data import DataLoader, Dataset

from conftest import hum
from harken.data.clips import Clip
from harken.training.augment.compose import Augmentation, WaveAugment
from harken.training.augment.featex import FeatEx, featex
from harken.training.augment.mixup import Mixup, mixed, mixed_lengths, mixup, one_hot
from harken.training.augment.noise_mix import NoiseBank, NoiseMix
from harken.training.augment.random_state import rng_for
from harken.training.augment.shift import Shift
from harken.training.augment.spec_augment import SpecAugment
from harken.training.augment.statex import StatEx, statex
from harken.training.model_spec import ModelSpec
from harken.training.models import build_model
from harken.training.recordings import Reader

ENCODERS = ("beats", "dasheng", "dual_branch", "eat", "efficientat", "fisher")


def noise_of(values: np.ndarray):  # type: ignore[no-untyped-def]
    return lambda rng: values.astype(np.float32)


def decibels(ratio: float) -> float:
    return float(10 * np.log10(ratio))


# ------------------------------------------------------------ random numbers


def test_random_numbers_depend_on_what_they_are_for() -> None:
    first = rng_for(1, 2, "clip", "shift").random(4)
    np.testing.assert_array_equal(rng_for(1, 2, "clip", "shift").random(4), first)
    others = [(0, 2, "clip", "shift"), (1, 3, "clip", "shift"), (1, 2, "clop", "shift"), (1, 2, "clip", "noise")]
    for other in others:
        assert not np.array_equal(rng_for(*other).random(4), first)
    means = [rng_for(0, 0, str(index)).random() for index in range(2000)]
    assert abs(np.mean(means) - 0.5) < 0.03


# ------------------------------------------------------------ noise


@given(st.integers(0, 10_000), st.sampled_from([500, 4000, 9000]))
def test_noise_is_added_at_the_ratio_that_was_drawn(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    wave = hum(seed, 0.25)
    noise = rng.normal(scale=10 ** rng.uniform(-3, 0), size=length)
    settings = NoiseMix(probability=1.0)
    mixed = settings.apply(wave, noise_of(noise), rng_for(seed, 0, "x"))
    added = mixed.astype(np.float64) - wave
    ratio = decibels(np.mean(wave.astype(np.float64) ** 2) / np.mean(added**2))
    assert min(abs(ratio - wanted) for wanted in settings.snr_db) < 0.1
    assert mixed.dtype == np.float32
    assert mixed.shape == wave.shape


def test_every_ratio_is_drawn_and_half_of_the_clips_stay() -> None:
    wave, noise = hum(1, 0.1), np.random.default_rng(0).normal(size=3000)
    found = []
    for index in range(800):
        mixed = NoiseMix().apply(wave, noise_of(noise), rng_for(0, 0, str(index)))
        added = mixed.astype(np.float64) - wave
        found.append(round(decibels(np.mean(wave**2) / np.mean(added**2))) if added.any() else None)
    assert abs(found.count(None) / 800 - 0.5) < 0.06
    for wanted in (5, 10, 15, 20):
        assert abs(found.count(wanted) / 800 - 0.125) < 0.04


def test_noise_where_there_is_none() -> None:
    wave, settings = hum(1, 0.1), NoiseMix(probability=1.0)
    rng = rng_for(0, 0, "x")
    assert settings.apply(wave, lambda rng: None, rng) is wave
    assert settings.apply(wave, noise_of(np.zeros(900)), rng) is wave
    silent = np.zeros(900, dtype=np.float32)
    assert settings.apply(silent, noise_of(np.ones(900)), rng) is silent


def test_noise_of_the_machine_or_of_all(tmp_path: Path) -> None:
    clips = []
    for name, machine, kind in (("n1", "fan", "noise"), ("n2", "pump", "noise"), ("c", "fan", "clean")):
        sf.write(tmp_path / f"{name}.wav", hum(len(clips), 0.2), 16_000)
        clips.append(Clip(name, tmp_path / f"{name}.wav", machine=machine, kind=kind))  # type: ignore[arg-type]
    heard: list[str] = []

    def read(clip: Clip) -> np.ndarray:
        heard.append(clip.clip_id)
        return Reader(16_000, None)(clip)

    bank = NoiseBank(clips, read)
    assert heard == []
    for index in range(20):
        assert bank.draw("fan", rng_for(0, 0, index)) is not None
    assert heard == ["n1"]
    for index in range(20):
        bank.draw(None, rng_for(0, 0, index))
    assert sorted(heard) == ["n1", "n2"]
    assert NoiseBank(clips[2:], read).draw("fan", rng_for(0, 0, 0)) is None
    (tmp_path / "n2.wav").write_bytes(b"")
    assert NoiseBank(clips[1:2], Reader(16_000, None)).draw(None, rng_for(0, 0, 0)) is None


class _Augmented(Dataset[np.ndarray]):
    def __init__(self, clips: list[Clip]) -> None:
        settings = Augmentation(shift=Shift(gain_db=6.0), noise_mix=NoiseMix(probability=1.0))
        self.clips = clips
        self.read = Reader(16_000, 0.2)
        self.transform = settings.wave_transform(clips, self.read)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> np.ndarray:
        assert self.transform is not None
        return self.transform(self.read(self.clips[index]), self.clips[index], 3, 1)


def test_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    clips = []
    for index in range(9):
        sf.write(tmp_path / f"{index}.wav", hum(index, 0.2), 16_000)
        clips.append(Clip(str(index), tmp_path / f"{index}.wav", kind="noise" if index > 5 else "machine"))
    found = [
        [np.asarray(wave) for wave in DataLoader(_Augmented(clips), batch_size=None, num_workers=workers)]
        for workers in (0, 1, 2)
    ]
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(found[0][0], Reader(16_000, 0.2)(clips[0]))


# ------------------------------------------------------------ shift


@given(st.integers(0, 1000), st.floats(0, 12))
def test_a_shift_keeps_every_sample_and_a_gain_is_in_bounds(seed: int, gain_db: float) -> None:
    wave = hum(seed, 0.1)
    moved = Shift(time=1.0).apply(wave, rng_for(seed, 0, "x"))
    np.testing.assert_array_equal(np.sort(moved), np.sort(wave))
    louder = Shift(time=0.0, gain_db=gain_db).apply(wave, rng_for(seed, 0, "x"))
    change = decibels(np.mean(louder.astype(np.float64) ** 2) / np.mean(wave.astype(np.float64) ** 2))
    assert abs(change) <= gain_db + 1e-3
    np.testing.assert_allclose(louder * 10 ** (-change / 20), wave, atol=1e-5)


def test_shifts_reach_as_far_as_they_say() -> None:
    wave = np.arange(1000, dtype=np.float32)
    starts = [int(Shift(time=0.2).apply(wave, rng_for(0, 0, index)).argmin()) for index in range(300)]
    assert 180 < max(starts) < 200
    assert min(starts) < 20


# ------------------------------------------------------------ mixup


@given(st.integers(1, 9), st.integers(2, 5), st.integers(0, 1000), st.floats(0, 1))
def test_mixed_clips_and_their_shares(clips: int, classes: int, seed: int, probability: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    wave = torch.randn(clips, 50, generator=generator)
    shares = one_hot(torch.randint(classes, (clips,), generator=generator), classes)
    mixed, mixed_shares = mixup(wave, shares, rng_for(seed, 0, 0), Mixup(probability=probability))
    torch.testing.assert_close(mixed_shares.sum(dim=1), torch.ones(clips))
    assert bool((mixed_shares >= 0).all())
    for row in range(clips):
        # What is left of the clip and what came of its partner explain it wholly.
        basis = torch.stack([wave[row], wave.flip(0)[row]], dim=1)
        part = torch.linalg.lstsq(basis.double(), mixed[row].double()).solution
        torch.testing.assert_close(basis.double() @ part, mixed[row].double(), atol=1e-5, rtol=1e-5)
        if 2 * row + 1 != clips:
            expected = part[0].float() * shares[row] + part[1].float() * shares.flip(0)[row]
            torch.testing.assert_close(mixed_shares[row], expected, atol=1e-4, rtol=1e-4)


def test_half_of_the_clips_are_mixed_evenly() -> None:
    shares = one_hot(torch.arange(4000) % 2, 2)
    # The flipped batch has the other class in every place.
    _, mixed = mixup(torch.zeros(4000, 1), shares, rng_for(0, 0, 0))
    own = (mixed * shares).sum(dim=1).numpy()
    assert abs(np.mean(own == 1) - 0.5) < 0.03
    drawn = own[own < 1]
    assert abs(drawn.mean() - 0.5) < 0.03
    assert abs(np.mean(drawn < 0.25) - 0.25) < 0.03


def test_labels_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="classes are 0 to 2"):
        one_hot(torch.tensor([0, -1]), 3)
    with pytest.raises(ValueError, match="2 clips for 3 labels"):
        mixup(torch.zeros(2, 5), torch.zeros(3, 2), rng_for(0, 0, 0))


# ------------------------------------------------------------ feature exchange


@pytest.mark.parametrize("count", [2, 3])
def test_featex_exchanges_what_it_says(count: int) -> None:
    branches = [torch.randn(6, 4 + index, requires_grad=True) for index in range(count)]
    shares = one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3)
    found, triple = featex(branches, shares, rng_for(0, 0, 0))
    assert found[0] is branches[0]
    exchanged = [not torch.equal(found[1][row], branches[1][row]) for row in range(6)]
    assert 0 < sum(exchanged) < 6
    torch.testing.assert_close(triple.sum(dim=1), torch.ones(6))
    for row in range(6):
        for later in range(1, count):
            source = branches[later].flip(0) if exchanged[row] else branches[later]
            assert torch.equal(found[later][row], source[row])
        if exchanged[row]:
            expected = torch.cat([torch.zeros(3), shares[row] / count, shares.flip(0)[row] * (count - 1) / count])
        else:
            expected = torch.cat([shares[row], torch.zeros(6)])
        torch.testing.assert_close(triple[row], expected)
    row = exchanged.index(True)
    found[1][row].sum().backward()
    gradient = branches[1].grad
    assert gradient is not None
    assert gradient[5 - row].any()
    assert not gradient[row].any()


def test_featex_as_often_as_it_says() -> None:
    shares = one_hot(torch.zeros(3000, dtype=torch.int64), 2)
    _, triple = featex([torch.zeros(3000, 1)] * 2, shares, rng_for(0, 0, 0), FeatEx(probability=0.3))
    assert abs(float((triple[:, 0] == 0).float().mean()) - 0.3) < 0.03
    with pytest.raises(ValueError, match="two branches"):
        featex([torch.zeros(2, 1)], shares[:2], rng_for(0, 0, 0))
    with pytest.raises(ValueError, match="2, 3 clips for 2"):
        featex([torch.zeros(2, 1), torch.zeros(3, 1)], shares[:2], rng_for(0, 0, 0))


# ------------------------------------------------------------ SpecAugment


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 90), st.integers(0, 90), st.integers(0, 500))
def test_masks_are_bars_no_wider_than_they_may_be(frames: int, bins: int, time: int, frequency: int, seed: int) -> None:
    x = torch.randn(3, frames, bins, generator=torch.Generator().manual_seed(seed)) + 10
    settings = SpecAugment(time=time, frequency=frequency)
    masked = settings.for_batch([rng_for(seed, 0, row) for row in range(3)])(x)
    for before, after in zip(x, masked, strict=True):
        gone = (after == 0).numpy()
        rows, columns = gone.all(axis=1), gone.all(axis=0)
        np.testing.assert_array_equal(gone, rows[:, None] | columns[None])
        assert torch.equal(after[torch.from_numpy(~gone)], before[torch.from_numpy(~gone)])
        if not gone.all():
            # The width of a mask is about a spectrogram of 128 bins; others have the same share of theirs hidden.
            for bar, widest in ((rows, time), (columns, frequency * bins / 128)):
                assert bar.sum() <= widest
                # One bar: it begins and ends at most once.
                assert np.abs(np.diff(np.concatenate([[0], bar.astype(int), [0]]))).sum() <= 2
    again = settings.for_batch([rng_for(seed, 0, row) for row in range(3)])(x)
    assert torch.equal(again, masked)


def test_widths_are_even_and_bands_have_masks_of_their_own() -> None:
    x = torch.ones(1000, 100, 2)
    masked = SpecAugment(time=80, frequency=0).for_batch([rng_for(0, 0, row) for row in range(1000)])(x)
    widths = (masked[:, :, 0] == 0).sum(dim=1).numpy()
    assert widths.max() < 80
    assert abs(widths.mean() - 39.5) < 2.5
    half = SpecAugment(time=80, probability=0.5).for_batch([rng_for(0, 0, row) for row in range(1000)])(x)
    assert abs(float((half == x).all(dim=(1, 2)).float().mean()) - 0.5) < 0.05
    for bins, most in ((64, 40), (128, 80), (500, 313)):
        x = torch.ones(400, 2, bins)
        masked = SpecAugment(time=0, frequency=80).for_batch([rng_for(0, 0, row) for row in range(400)])(x)
        widths = (masked[:, 0] == 0).sum(dim=1).numpy()
        assert 0.97 * most < widths.max() <= most
    bands = SpecAugment(time=80).for_batch([rng_for(0, 0, 0)])(torch.ones(2, 100, 50))
    assert not torch.equal(bands[0], bands[1])
    with pytest.raises(ValueError, match="3 spectrograms for 2 clips"):
        SpecAugment().for_batch([rng_for(0, 0, 0)] * 2)(torch.ones(3, 4, 4))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_networks_hear_masks_in_training_only(encoder: str) -> None:
    spec = ModelSpec.model_validate({"branches": [{"encoder": encoder, "size": "tiny"}]})
    built = build_model(spec)
    wave = torch.from_numpy(np.stack([hum(seed, 1.0) for seed in range(2)]))
    plain = built(wave)
    shapes = []

    def hook(x: torch.Tensor) -> torch.Tensor:
        masked = SpecAugment(time=30, frequency=30).for_batch([rng_for(0, 0, row) for row in range(2)])(x)
        shapes.append(tuple(x.shape))
        return masked

    built.spectrogram_augment = hook
    assert torch.equal(built(wave), plain)
    assert shapes == []
    built.train()
    assert not torch.equal(built(wave), plain)
    assert len(shapes) == 1
    # Time before frequency: 1 s has more frames of 10 ms than these have bands, but for those of long frames.
    assert shapes[0][0] == 2
    assert len(shapes[0]) == 3


@pytest.mark.parametrize(
    "wrong",
    [lambda: NoiseMix(probability=1.5), lambda: NoiseMix(snr_db=()), lambda: SpecAugment(time=-1),
     lambda: Mixup(alpha=0.0), lambda: FeatEx(probability=-0.1), lambda: Shift(time=2.0),
     lambda: Augmentation.model_validate({"spec_augmentt": {}})],
)  # fmt: skip
def test_settings_that_make_no_sense(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValidationError):
        wrong()


@pytest.mark.parametrize(
    "wrong",
    [lambda: NoiseMix(snr_db=(5.0, float("inf"))), lambda: NoiseMix(probability=float("nan")),
     lambda: Mixup(probability=2.0), lambda: Mixup(alpha=float("inf")), lambda: SpecAugment(frequency_masks=-1),
     lambda: SpecAugment(probability=-1.0), lambda: StatEx(probability=1.1), lambda: Shift(gain_db=-1.0),
     lambda: Shift(gain_db=float("inf"))],
)  # fmt: skip
def test_no_value_is_out_of_bounds(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError):
        wrong()


def test_settings_need_no_torch() -> None:
    """In a process where torch cannot be imported."""
    program = """
import sys
sys.modules["torch"] = None
import numpy as np
from harken.data.clips import Clip
from harken.training.augment.compose import Augmentation, WaveAugment
settings = Augmentation.model_validate({"shift": {}, "mixup": {}, "featex": {}, "spec_augment": {}, "noise_mix": {}})
print(WaveAugment(settings, None)(np.ones(9, dtype=np.float32), Clip("a", "a"), 0, 0).sum())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 9


def test_ids_that_are_no_unicode() -> None:
    name = b"caf\xe9.wav".decode("utf-8", "surrogateescape")
    assert rng_for(0, 0, name).random() == rng_for(0, 0, name).random() != rng_for(0, 0, "caf.wav").random()


# ------------------------------------------------------------ noise, its place and its source


def test_long_noise_is_cropped_and_short_noise_repeated_anywhere() -> None:
    wave, settings = hum(1, 0.05), NoiseMix(probability=1.0, snr_db=(0.0,))
    rng = np.random.default_rng(0)
    long, short = rng.normal(size=5 * len(wave)), rng.normal(size=len(wave) // 3)
    starts = []
    for index in range(60):
        added = settings.apply(wave, noise_of(long), rng_for(0, 0, index)).astype(np.float64) - wave
        match = np.correlate(long, added, "valid") / np.linalg.norm(added)
        place = int(match.argmax())
        assert match[place] / np.linalg.norm(long[place : place + len(wave)]) > 0.999
        starts.append(place)
    assert min(starts) < 0.1 * 4 * len(wave)
    assert max(starts) > 0.9 * 4 * len(wave)
    added = [settings.apply(wave, noise_of(short), rng_for(0, 0, index)).astype(np.float64) - wave for index in (0, 1)]
    for one in added:
        np.testing.assert_allclose(one[len(short) :], one[: -len(short)], atol=1e-6)
    assert not np.allclose(added[0], added[1], atol=1e-3)


def test_what_is_almost_silent_is_left_alone() -> None:
    wave, settings = hum(1, 0.1), NoiseMix(probability=1.0)
    least = np.resize([2e-5, -2e-5], len(wave)).astype(np.float32)
    assert settings.apply(wave, noise_of(least), rng_for(0, 0, 0)) is wave
    assert settings.apply(least, noise_of(wave), rng_for(0, 0, 0)) is least
    loud = np.ones(900, dtype=np.float32)
    # Nothing is clipped.
    assert settings.apply(loud, noise_of(loud), rng_for(0, 0, 0)).max() > 1


def _written(folder: Path, name: str, wave: np.ndarray, **fields: object) -> Clip:
    sf.write(folder / f"{name}.wav", wave, 16_000, subtype="FLOAT")
    return Clip(name, folder / f"{name}.wav", **fields)  # type: ignore[arg-type]


def test_noise_is_drawn_from_whole_recordings_whatever_length_is_trained_on(tmp_path: Path) -> None:
    # A ramp tells which part was taken.
    noise = _written(tmp_path, "n", np.linspace(0.1, 1, 16_000, dtype=np.float32), kind="noise")
    transform = Augmentation(noise_mix=NoiseMix(probability=1.0)).wave_transform([noise], Reader(16_000, 0.1))
    assert isinstance(transform, WaveAugment)
    wave = hum(1, 0.1)
    slopes = []
    for index in range(30):
        added = transform(wave, Clip(str(index), tmp_path), 0, 0) - wave
        slopes.append(float(added[-1] / added[0]))
    # The first tenth of a second almost doubles, the last hardly grows.
    assert min(slopes) < 1.15
    assert max(slopes) > 1.4


def test_labels_stay_true_and_test_clips_unheard(tmp_path: Path) -> None:
    noise = _written(tmp_path, "n", hum(0, 0.2), machine="", kind="noise")
    tested = _written(tmp_path, "t", hum(1, 0.2), machine="fan", kind="noise", split="test")
    settings = Augmentation(noise_mix=NoiseMix(probability=1.0, own_machine=True))
    assert NoiseBank([noise, tested], Reader(16_000, None)).all == [noise]
    transform = settings.wave_transform([noise, tested], Reader(16_000, 0.2))
    assert transform is not None
    wave = hum(2, 0.2)
    for kind, changed in (
        ("machine", True),
        ("generated", True),
        ("separated", True),
        ("clean", False),
        ("noise", False),
    ):
        clip = Clip("c", tmp_path, machine="fan", kind=kind)  # type: ignore[arg-type]
        assert np.array_equal(transform(wave, clip, 0, 0), wave) is not changed
    assert Augmentation(mixup=Mixup()).wave_transform([noise], Reader(16_000, 0.2)) is None


def test_own_machine_is_a_choice_and_no_machine_is_any(tmp_path: Path) -> None:
    clips = [Clip(f"n{machine}", tmp_path, machine=machine, kind="noise") for machine in ("", "fan", "pump")]
    heard: set[str] = set()

    def read(clip: Clip) -> np.ndarray:
        heard.add(clip.clip_id)
        return np.ones(9, dtype=np.float32)

    def drawn(machine: str | None) -> set[str]:
        heard.clear()
        bank = NoiseBank(clips, read)
        for index in range(40):
            bank.draw(machine, rng_for(0, 0, index))
        return set(heard)

    every = {"n", "nfan", "npump"}
    assert (drawn(None), drawn("fan"), drawn("valve")) == (every, {"nfan"}, every)
    for own, expected in ((True, {"nfan"}), (False, every)):
        heard.clear()
        settings = NoiseMix(probability=1.0, own_machine=own)
        augment = WaveAugment(Augmentation(noise_mix=settings), NoiseBank(clips, read))
        for index in range(40):
            augment(hum(index, 0.05), Clip(str(index), tmp_path, machine="fan"), 0, 0)
        assert heard == expected


class _Reads:
    """Counts; each recording is 4 kB."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, clip: Clip) -> np.ndarray:
        self.count += 1
        return np.ones(1000, dtype=np.float32)


def test_little_noise_is_kept_and_none_is_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harken.training.augment.noise_mix.KEPT_BYTES", 8000)
    reads = _Reads()
    clips = [Clip(name, tmp_path, machine=name, kind="noise") for name in "abc"]
    bank = NoiseBank(clips, reads)
    for machine, expected in (("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4), ("c", 5)):
        assert bank.draw(machine, rng_for(0, 0, 0)) is not None
        assert reads.count == expected, machine
    monkeypatch.setattr("harken.training.augment.noise_mix.KEPT_BYTES", 100)
    assert bank.draw("a", rng_for(0, 0, 0)) is not None
    again = pickle.loads(pickle.dumps(bank))
    assert again.draw("b", rng_for(0, 0, 0)) is not None
    assert again.read.count == reads.count + 1
    settings = Augmentation(shift=Shift(), noise_mix=NoiseMix())
    augment = pickle.loads(pickle.dumps(settings.wave_transform(clips, Reader(16_000, 0.1))))
    assert augment.settings == settings


def test_the_same_in_any_order_and_another_in_another_epoch(tmp_path: Path) -> None:
    clips = [_written(tmp_path, str(index), hum(index, 0.1), kind="noise") for index in range(3)]
    settings = Augmentation(shift=Shift(gain_db=3.0), noise_mix=NoiseMix(probability=1.0))
    heard = [Clip(f"c{index}", tmp_path) for index in range(8)]
    wave = hum(9, 0.1)

    def all_of(order: list[Clip], epoch: int) -> dict[str, bytes]:
        transform = settings.wave_transform(clips, Reader(16_000, 0.1))
        assert transform is not None
        return {clip.clip_id: transform(wave, clip, 1, epoch).tobytes() for clip in order}

    first = all_of(heard, 0)
    assert all_of(heard[::-1], 0) == first
    assert all_of(heard[3:5], 0).items() <= first.items()
    assert not set(all_of(heard, 1).values()) & set(first.values())


def test_a_shift_is_circular() -> None:
    wave = np.arange(100, dtype=np.float32)
    for index in range(20):
        moved = Shift().apply(wave, rng_for(0, 0, index))
        np.testing.assert_array_equal(np.roll(moved, -int(moved.argmin())), wave)


# ------------------------------------------------------------ batches


@given(st.integers(1, 7), st.integers(0, 500))
def test_mixup_of_padded_clips(clips: int, seed: int) -> None:
    settings = Mixup(alpha=0.4)
    part = settings.kept_shares(clips, rng_for(seed, 0, 0))
    lengths = torch.arange(1, clips + 1) * 10
    wave = torch.randn(clips, 80, generator=torch.Generator().manual_seed(seed)) + 5
    wave = wave.masked_fill(torch.arange(80) >= lengths[:, None], 0.0)
    found, valid = mixed(wave, part), mixed_lengths(lengths, part)
    for row in range(clips):
        partner = clips - 1 - row
        own = np.float32(part[row])
        if own == 1:
            assert torch.equal(found[row], wave[row])
            assert valid[row] == lengths[row]
        else:
            torch.testing.assert_close(found[row], float(own) * wave[row] + (1 - float(own)) * wave[partner])
            assert valid[row] == max(lengths[row], lengths[partner])
        assert not found[row, valid[row] :].any()
    # `mixup` is the same.
    shares = one_hot(torch.arange(clips), clips)
    again, mixed_shares = mixup(wave, shares, rng_for(seed, 0, 0), settings)
    assert torch.equal(again, found)
    assert torch.equal(mixed_shares, mixed(shares, part))
    with pytest.raises(ValueError, match="parts for"):
        mixed(wave, part[1:])


def test_clips_that_are_not_mixed_are_not_touched() -> None:
    wave = torch.tensor([[-0.0, 1e-45], [float("inf"), float("nan")]])
    kept = mixed(wave, np.ones(2))
    np.testing.assert_array_equal(kept.numpy().view(np.uint32), wave.numpy().view(np.uint32))


def test_featex_teaches_both_clips_and_keeps_the_middle_one() -> None:
    branches = [torch.randn(5, 3, requires_grad=True) for _ in range(2)]
    shares = one_hot(torch.tensor([0, 1, 2, 1, 0]), 3)
    (first, later), triple = featex(branches, shares, rng_for(0, 0, 0), FeatEx(probability=1.0))
    # The one in the middle is its own partner.
    assert (triple[:, :3].sum(dim=1) == torch.tensor([0.0, 0, 1, 0, 0])).all()
    assert torch.equal(later[2], branches[1][2])
    (first[0].sum() + later[0].sum()).backward()
    for branch, row in zip(branches, (0, 4), strict=True):
        assert branch.grad is not None
        assert branch.grad.any(dim=1).nonzero().flatten().tolist() == [row]


def test_statex_exchanges_mean_and_deviation_of_every_bin() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(rng.normal(size=(6, 1, 4)), rng.uniform(0.5, 2, (6, 1, 4)), (6, 50, 4)))
    x[1, :, 2] = 1000.1
    x = x.float().requires_grad_()
    shares = one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3)
    found, triple = statex(x, shares, rng_for(0, 0, 1))
    exchanged = triple[:, :3].sum(dim=1) == 0
    assert 0 < int(exchanged.sum()) < 6
    everything, _ = statex(x, shares, rng_for(0, 0, 1), StatEx(probability=1.0))
    for row in range(6):
        if not exchanged[row]:
            assert torch.equal(found[row], x[row])
            assert torch.equal(triple[row], torch.cat([shares[row], torch.zeros(6)]))
            continue
        expected = torch.cat([torch.zeros(3), shares[row] / 2, shares[5 - row] / 2])
        torch.testing.assert_close(triple[row], expected)
        assert torch.equal(found[row], everything[row])
    partner = x.flip(0)
    torch.testing.assert_close(everything.mean(dim=1), partner.mean(dim=1), atol=1e-4, rtol=1e-4)
    deviation = partner.std(dim=1)
    deviation[1, 2] = 0.0  # what is constant has no course
    torch.testing.assert_close(everything.std(dim=1), deviation, atol=1e-3, rtol=1e-4)
    course = np.corrcoef(everything[0, :, 0].detach(), x[0, :, 0].detach())[0, 1]
    assert course == pytest.approx(1)
    everything.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    with pytest.raises(ValueError, match="6 spectrograms for 2 labels"):
        statex(x, shares[:2], rng_for(0, 0, 0))


# ------------------------------------------------------------ masks


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 300))
def test_masks_leave_something_and_reach_everywhere(frames: int, bins: int, seed: int) -> None:
    x = torch.ones(4, frames, bins)
    masked = SpecAugment().for_batch([rng_for(seed, 0, row) for row in range(4)])(x)
    assert bool(masked.any(dim=2).any(dim=1).all())


def test_first_and_last_are_masked_as_often() -> None:
    x = torch.ones(3000, 10, 10)
    gone = SpecAugment(time=5, frequency=64).for_batch([rng_for(0, 0, row) for row in range(3000)])(x) == 0
    for axis in (1, 2):
        bar = gone.all(dim=axis).float().mean(dim=0)
        # Widths 0 to 4, each of which fits in 11 - width places.
        for end in (bar[0], bar[-1]):
            assert abs(float(end) - sum(1 / (11 - width) for width in range(1, 5)) / 5) < 0.02


def test_masks_pass_gradients_where_they_are_not() -> None:
    x = torch.randn(2, 40, 30, requires_grad=True)
    masked = SpecAugment(time_masks=2, frequency_masks=2).for_batch([rng_for(0, 0, row) for row in range(2)])(x)
    masked.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, masked == 0)
    assert 0 < float(x.grad.mean()) < 1
    with pytest.raises(ValueError, match="at least one clip"):
        SpecAugment().for_batch([])


def test_branches_have_masks_of_their_own() -> None:
    spec = ModelSpec.model_validate({"branches": [{"encoder": name, "size": "tiny"} for name in ("beats", "eat")]})
    built = build_model(spec).train()
    wave = torch.from_numpy(np.stack([hum(seed, 1.0) for seed in range(2)]))
    for name in ("beats", "eat"):
        assert name in {encoder.name for encoder in built.encoders}
    hidden: list[list[int]] = []
    for _ in range(2):
        masks = SpecAugment(time=0, frequency=40).for_batch([rng_for(0, 0, row, "spec_augment") for row in range(2)])

        def hook(x: torch.Tensor) -> torch.Tensor:
            after = masks(x)  # noqa: B023
            hidden.append((after == 0).all(dim=1)[0].nonzero().flatten().tolist())
            return after

        built.spectrogram_augment = hook
        built(wave)
    assert hidden[0] != hidden[1]
    assert hidden[:2] == hidden[2:]

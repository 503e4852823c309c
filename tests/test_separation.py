"""Separators: recordings of any length, rate and level; training guided by clean sound or by noise; bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from numpy.typing import NDArray

from harken.audio.decode import decode
from harken.cli.main import app
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.separation.config import SIZES, SepReformerConfig
from harken.separation.initial import pass_mixture_on, passes_mixture_on
from harken.separation.losses import si_snr_db
from harken.separation.mixtures import Mixtures
from harken.separation.recordings import separate_files
from harken.separation.separator import LEVEL, Separator, load_separator
from harken.separation.sepreformer import Separated, SepReformer
from harken.separation.settings import SeparationSpec
from harken.separation.sounds import sounds_of
from harken.separation.training import guided_loss, invariant_loss, train_separators
from test_sepreformer import GOLDEN, SMALL

RATE = 16_000
QUICK = SeparationSpec(steps=3, batch=2, seconds=0.25, warmup=0, evaluate_every=2)


def network(seed: int = 0, **changes: object) -> SepReformer:
    """Random weights, whose blocks do something."""
    torch.manual_seed(seed)
    net = SepReformer(SepReformerConfig.model_validate({**SMALL.model_dump(), "dropout": 0.0, **changes})).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return net


def tones(samples: int, rate: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    """(1, samples)"""
    time_S = np.arange(samples) / rate
    rng = np.random.default_rng(seed)
    wave_S = 0.2 * np.sin(2 * np.pi * 110 * time_S) + 0.1 * np.sin(2 * np.pi * 1730 * time_S)
    return (wave_S + 0.05 * rng.normal(size=samples)).astype(np.float32)[None]


@pytest.fixture
def clips(tmp_path: Path) -> Callable[..., list[Clip]]:
    """Clips of a machine: so many normal ones, clean ones and noise."""

    def made(machine: str, *, normal: int = 0, clean: int = 0, noise: int = 0, seconds: float = 0.5) -> list[Clip]:
        rows = []
        for kind, split, count in (
            ("machine", "train", normal), ("clean", "supplemental", clean), ("noise", "supplemental", noise),
        ):  # fmt: skip
            for number in range(count):
                seed = len(machine) + 10 * number + len(kind)
                samples = round(seconds * RATE)
                noise_S = 0.05 * np.random.default_rng(seed).normal(size=samples)
                sound_S = np.sin(2 * np.pi * (100 + 37 * len(machine)) * np.arange(samples) / RATE)
                wave_S = (kind != "noise") * 0.2 * sound_S + (kind != "clean") * noise_S
                file = tmp_path / f"{machine}_{kind}_{number}.wav"
                sf.write(file, wave_S, RATE)
                rows.append(
                    Clip(file.name, file, corpus="lab", split=split, machine=machine, section="00", domain="source",
                         condition="normal", kind=kind)
                )  # fmt: skip
        return rows

    return made


# ------------------------------------------------------------ recordings


@pytest.mark.parametrize("samples", [4800, 5000, 160_001])
def test_machine_and_mixture_have_one_length_and_silence_stays_silent(samples: int) -> None:
    separator = Separator(network(), chunk_seconds=1.0, overlap_seconds=0.25)
    wave_CS = np.concatenate([tones(samples), np.zeros((1, samples), np.float32)])
    machine_CS = separator.separate(wave_CS, RATE)
    assert machine_CS.shape == wave_CS.shape
    assert np.isfinite(machine_CS).all()
    assert machine_CS[0].std() > 0
    assert not machine_CS[1].any()
    # Channels do not depend on each other.
    np.testing.assert_allclose(separator.separate(wave_CS[:1], RATE), machine_CS[:1], atol=1e-6)


def test_long_recordings_are_separated_as_in_one_piece() -> None:
    separator = Separator(network(), chunk_seconds=4.0, overlap_seconds=1.0)
    wave_CS = tones(11 * RATE)
    whole_CS = replace(separator, chunk_seconds=20.0).separate(wave_CS, RATE)
    pieces_CS = separator.separate(wave_CS, RATE)
    edge = RATE // 2
    assert np.abs(pieces_CS - whole_CS)[:, edge:-edge].max() < 1e-3
    assert np.abs(whole_CS).max() > 0.02


def test_the_machine_is_as_loud_as_it_is_in_the_recording() -> None:
    class Halves(SepReformer):
        """Outputs of the right shapes and wrong levels: below and above 500 Hz."""

        def forward(self, mixture_BS: torch.Tensor, *, auxiliary: bool = False) -> Separated:
            spectrum_BF = torch.fft.rfft(mixture_BS)
            low_F = torch.fft.rfftfreq(mixture_BS.shape[-1], 1 / RATE) < 500
            low_BS = torch.fft.irfft(spectrum_BF * low_F, mixture_BS.shape[-1])
            return Separated(torch.stack([-7 * low_BS, 0.01 * (mixture_BS - low_BS)], dim=1), None)

    separator = Separator(Halves(network().config))
    for gain in (1e-3, 1.0, 4.0):
        wave_CS = gain * tones(RATE)
        expected_S = gain * 0.2 * np.sin(2 * np.pi * 110 * np.arange(RATE) / RATE)
        np.testing.assert_allclose(separator.separate(wave_CS, RATE)[0], expected_S, atol=gain * 0.05)


@pytest.mark.parametrize("rate", [8000, 44_100])
def test_recordings_of_other_rates_keep_them(rate: int) -> None:
    separator = Separator(network())
    wave_CS = tones(rate // 2, rate)
    machine_CS = separator.separate(wave_CS, rate)
    assert machine_CS.shape == wave_CS.shape
    assert machine_CS.std() > 0
    if rate == 44_100:  # above half its rate it hears nothing
        spectrum_F = np.abs(np.fft.rfft(machine_CS[0] * np.hanning(machine_CS.shape[1])))
        assert spectrum_F[len(spectrum_F) // 2 :].max() < 1e-3 * spectrum_F.max()


def test_separators_are_read_as_written_and_as_published(shared: Path, tmp_path: Path) -> None:
    separator = Separator(network(), machines=("lab/fan",), metadata={"step": 3})
    separator.write(tmp_path / "fan.safetensors")
    again = load_separator(tmp_path / "fan.safetensors")
    assert (again.machines, again.level, again.sample_rate, again.metadata) == (("lab/fan",), LEVEL, RATE, {"step": 3})
    np.testing.assert_array_equal(again.separate(tones(3000), RATE), separator.separate(tones(3000), RATE))
    published = load_separator(shared / f"golden/{GOLDEN['16 kHz']}.pt", sample_rate=RATE)
    assert (published.level, published.net.config.sources) == (None, 2)
    assert load_separator(shared / f"golden/{GOLDEN['8 kHz']}.pt").sample_rate == 8000
    with pytest.raises(HarkenError, match="not a SepReformer"):
        load_separator(shared / "golden/encoders/eat_tiny.pt")
    with pytest.raises(HarkenError, match="no such file"):
        load_separator(tmp_path / "missing.safetensors")
    data = (tmp_path / "fan.safetensors").read_bytes()
    (tmp_path / "fan.safetensors").write_bytes(data[:-100])
    with pytest.raises(HarkenError):
        load_separator(tmp_path / "fan.safetensors")


def test_the_verb_writes_machine_and_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Separator(network()).write(tmp_path / "s.safetensors")
    stereo_CS = np.concatenate([tones(8000), 3 * tones(8000, seed=1)])
    sf.write(tmp_path / "a.wav", stereo_CS.T, RATE, subtype="FLOAT")
    sf.write(tmp_path / "b.wav", np.zeros(8000), RATE)
    sf.write(tmp_path / "c.wav", tones(400)[0], RATE)
    files = [str(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")]
    words = ["separate", *files, "-m", str(tmp_path / "s.safetensors"), "-o", str(tmp_path / "out"), "--json"]
    assert app(args=words, standalone_mode=False) == 2
    captured = capsys.readouterr()
    assert "b.wav: is silent" in captured.err
    assert "c.wav: lasts 25 ms" in captured.err
    (row,) = map(json.loads, captured.out.splitlines())
    machine, noise = (decode(Path(row[name])) for name in ("machine", "noise"))
    assert machine.sample_rate == RATE
    np.testing.assert_allclose(machine.samples_CS + noise.samples_CS, stereo_CS, atol=1e-5)
    with pytest.raises(HarkenError, match="2 recordings are called a"):
        separate_files([tmp_path / "a.wav", tmp_path / "x" / "a.wav"], Separator(network()), tmp_path / "out")
    with pytest.raises(HarkenError, match="a and A are one name where case does not count"):
        separate_files([tmp_path / "a.wav", tmp_path / "x" / "A.wav"], Separator(network()), tmp_path / "out")


# ------------------------------------------------------------ mixtures


def test_mixtures_are_clean_sound_and_noise_of_other_machines(clips: Callable[..., list[Clip]]) -> None:
    rows = [*clips("fan", clean=3), *clips("pump", noise=2, normal=2), *clips("valve", normal=2)]
    sounds = sounds_of(rows)
    assert {key: machine.mode for key, machine in sounds.items()} == {
        "lab/fan": "guided", "lab/pump": "invariant", "lab/valve": None,
    }  # fmt: skip
    spec = QUICK.model_copy(update={"batch": 6, "snr_db": (-5.0, 10.0)})
    (batch,) = Mixtures(sounds, "guided", spec, RATE).batches(4, 1)
    torch.testing.assert_close(batch.targets_BKS.sum(dim=1), batch.wave_BS)
    torch.testing.assert_close(batch.wave_BS.square().mean(dim=1).sqrt(), torch.full((6,), LEVEL))
    power_BK = batch.targets_BKS.square().mean(dim=-1)
    snr_B = 10 * torch.log10(power_BK[:, 0] / power_BK[:, 1])
    assert snr_B.min() >= -5.01
    assert snr_B.max() <= 10.01
    assert snr_B.max() - snr_B.min() > 3
    # The machine is a tone, the noise is none.
    share_BK = torch.fft.rfft(batch.targets_BKS).abs().square()
    share_BK = share_BK.amax(dim=-1) / share_BK.sum(dim=-1)
    assert share_BK[:, 0].min() > 0.3
    assert share_BK[:, 1].max() < 0.05
    # What comes depends on its number only.
    *_, again = Mixtures(sounds, "guided", spec, RATE).batches(2, 3)
    torch.testing.assert_close(again.targets_BKS, batch.targets_BKS, rtol=0, atol=0)
    (other,) = Mixtures(sounds, "guided", spec, RATE).batches(5, 1)
    assert not torch.equal(other.targets_BKS, batch.targets_BKS)


def test_mixture_invariant_loss_takes_the_better_assignment() -> None:
    torch.manual_seed(0)
    machine_S, noise_S, added_S = torch.randn(3, 4000)
    targets_BKS = torch.stack([machine_S + noise_S, added_S])[None]
    for order in ((machine_S, noise_S, added_S), (machine_S, added_S, noise_S)):
        sources_BKS = torch.stack(order)[None]
        loss = invariant_loss(Separated(sources_BKS, sources_BKS[None]), targets_BKS, 0.4)
        assert loss.item() < -30
    wrong_BKS = torch.stack([added_S, machine_S, noise_S])[None]
    assert invariant_loss(Separated(wrong_BKS, wrong_BKS[None]), targets_BKS, 0.4).item() > 0


# ------------------------------------------------------------ training


def test_training_learns_resumes_and_ends_with_the_same_bits(clips: Callable[..., list[Clip]], tmp_path: Path) -> None:
    rows = [*clips("fan", clean=12, normal=2), *clips("pump", noise=3, normal=2), *clips("valve", normal=2)]
    spec = QUICK.model_copy(update={"rounds": 2})
    whole = train_separators(SMALL, spec, rows, tmp_path / "whole")
    assert {mode: trained.separator.machines for mode, trained in whole.items()} == {
        "guided": ("lab/fan",), "invariant": ("lab/pump",),
    }  # fmt: skip
    assert whole["invariant"].separator.net.config.sources == 3
    assert [len(history) for history in whole["guided"].history] == [2, 2]
    assert all(row.improvement_db is not None for row in whole["guided"].history[0])

    class Killed(Exception):
        pass

    for stop in (2, 5, 8):

        def killed(step: int, steps: int, loss: float, stop: int = stop) -> None:
            assert steps == 9
            if step == stop:
                raise Killed

        with pytest.raises(Killed):
            train_separators(SMALL, spec, rows, tmp_path / "killed", save_every=1, progress=killed)
    again = train_separators(SMALL, spec, rows, tmp_path / "killed", save_every=1)
    for mode, trained in whole.items():
        assert again[mode].file.read_bytes() == trained.file.read_bytes()
        assert again[mode].history == trained.history


def test_a_network_learns_to_separate(clips: Callable[..., list[Clip]], tmp_path: Path) -> None:
    rows = [*clips("fan", clean=2), *clips("pump", noise=3)]
    spec = SeparationSpec(
        steps=40, batch=2, seconds=0.25, warmup=5, learning_rate=1e-2, snr_db=(0, 0), evaluate_every=40
    )
    trained = train_separators(SMALL, spec, rows, tmp_path / "t")["guided"]
    assert trained.history[0][-1].improvement_db is None  # two clips are too few to hold one out
    clean_S, noise_S = tones(8000)[0], decode(rows[-1].path).samples_CS[0]
    clean_S = decode(rows[0].path).samples_CS[0]
    mixture_S = clean_S + noise_S * clean_S.std() / noise_S.std()
    machine_S = trained.separator.separate(mixture_S[None], RATE)[0]
    reached, before = (si_snr_db(torch.from_numpy(x), torch.from_numpy(clean_S)) for x in (machine_S, mixture_S))
    assert reached - before > 5


@pytest.mark.parametrize("seconds", [0.3, 60.0])
def test_short_and_long_clean_clips_are_learned_from(
    clips: Callable[..., list[Clip]], tmp_path: Path, seconds: float
) -> None:
    rows = [*clips("fan", clean=2, seconds=seconds), *clips("pump", noise=1, seconds=0.5)]
    spec = QUICK.model_copy(update={"steps": 1, "seconds": 0.5})
    assert train_separators(SMALL, spec, rows, tmp_path / "t")["guided"].history[0][0].step == 1


def test_unusable_clips_are_set_aside(clips: Callable[..., list[Clip]], tmp_path: Path) -> None:
    many = [*clips("saw", clean=10), *clips("pump", noise=2)]
    sf.write(many[0].path, np.zeros(8000), RATE)  # would be held out
    assert train_separators(SMALL, QUICK, many, tmp_path / "many")["guided"].history[0][-1].improvement_db is None
    rows = [*clips("fan", clean=2), *clips("pump", noise=2)]
    sf.write(rows[0].path, np.zeros(8000), RATE)
    stereo_CS = np.concatenate([tones(8000), tones(8000, seed=1)])
    sf.write(rows[1].path, stereo_CS.T, RATE)
    trained = train_separators(SMALL, QUICK, rows, tmp_path / "t")["guided"]
    assert list(trained.quarantined) == [rows[0].clip_id]
    sf.write(rows[1].path, np.zeros(8000), RATE)
    with pytest.raises(HarkenError, match="none of 2 clips can be used"):
        train_separators(SMALL, QUICK, rows, tmp_path / "u")


def test_what_cannot_be_learned_is_refused(clips: Callable[..., list[Clip]], tmp_path: Path) -> None:
    with pytest.raises(HarkenError, match="no machine has clean clips, nor noise clips"):
        train_separators(SMALL, QUICK, clips("valve", normal=3), tmp_path / "a")
    with pytest.raises(HarkenError, match="clean clips, but no noise"):
        train_separators(SMALL, QUICK, clips("fan", clean=3), tmp_path / "b")
    only_noise = train_separators(SMALL, QUICK, clips("pump", noise=2, normal=2), tmp_path / "c")
    assert list(only_noise) == ["invariant"]
    with pytest.raises(HarkenError, match="state of another training"):
        train_separators(SMALL, QUICK, clips("drill", noise=2, normal=2), tmp_path / "c")


def test_guided_outputs_have_a_fixed_order() -> None:
    targets_BKS = torch.randn(2, 2, 2000)
    right = guided_loss(Separated(targets_BKS, targets_BKS[None]), targets_BKS, 0.4)
    swapped = guided_loss(Separated(targets_BKS.flip(1), targets_BKS.flip(1)[None]), targets_BKS, 0.4)
    assert right < -30 < 0 < swapped


def test_first_weights_pass_the_mixture_on() -> None:
    torch.manual_seed(0)
    small = SMALL.model_copy(update={"encoder_channels": 32, "features": 16, "shared_split": False})
    for config in (SIZES["tiny"], small):
        net = SepReformer(config).eval()
        assert passes_mixture_on(net)
        pass_mixture_on(net)
        mixture_BS = LEVEL * torch.randn(1, 8000)
        with torch.no_grad():
            outputs = net(mixture_BS, auxiliary=True)
        assert outputs.stages_LBKS is not None
        for output_BKS in (outputs.sources_BKS, *outputs.stages_LBKS):
            assert si_snr_db(output_BKS, mixture_BS[:, None]).min() > 10
    with pytest.raises(ValueError, match="lapped"):
        pass_mixture_on(SepReformer(SMALL))

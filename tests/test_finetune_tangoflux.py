"""Generators of sound are fine-tuned, resumed, kept in files, and make clips."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from harken.core.errors import HarkenError, WeightsError
from harken.data.clips import Clip
from harken.generation import config, tangoflux_weights
from harken.generation.finetuning import finetune
from harken.generation.latents import SoundCodec
from harken.generation.sound_generator import SoundForm, TangoFluxSampling
from harken.generation.tangoflux import TangoFlux
from harken.generation.tangoflux_files import create_tangoflux, read_tangoflux
from harken.generation.tangoflux_settings import FinetuningSpec
from harken.generation.text import text_encoder
from harken.training.model_spec import LoraSpec


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    rows = []
    for number in range(6):
        file = tmp_path / f"clip_{number}.wav"
        sf.write(file, sound(0.5, number), 16_000)
        rows.append(Clip(
            f"clip {number}", file, "dcase2025", 2025, "train", "fan", "00", "source", "normal",
            attributes={"n": "AB"[number % 2]},
        ))  # fmt: skip
    return rows


@pytest.fixture(autouse=True)
def short_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of at most 1 s, so that steps take little."""
    tiny = config.SIZES["tiny"].model_copy(update={"latents": 125, "seconds": 1.0})
    monkeypatch.setitem(config.SIZES, "tiny", tiny)


def sound(seconds: float, seed: int) -> NDArray[np.float32]:
    time_S = np.arange(round(seconds * 16_000)) / 16_000
    noise_S = np.random.default_rng(seed).normal(size=len(time_S))
    return (0.05 * np.sin(2 * np.pi * 200 * time_S) + 0.005 * noise_S).astype(np.float32)


@pytest.mark.parametrize("adapter", [None, LoraSpec(rank=2)])
def test_a_training_that_was_killed_ends_with_the_same_bits(
    clips: list[Clip], tmp_path: Path, adapter: LoraSpec | None
) -> None:
    spec = FinetuningSpec(steps=4, batch=2, warmup=2, learning_rate=1e-3, adapter=adapter, evaluate_every=2)

    def train(folder: str, stop_at: int = 0) -> bytes:
        def progress(step: int, steps: int, loss: float) -> None:
            if step == stop_at:
                raise KeyboardInterrupt

        return finetune(
            create_tangoflux(None, seed=3), "tiny", spec, clips, tmp_path / folder, save_every=2, progress=progress
        ).file.read_bytes()

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", stop_at=3)
    assert train("killed") == whole
    before = create_tangoflux(None, seed=3)
    after = read_tangoflux(tmp_path / "whole" / "generator.safetensors")
    changed = {name for name, x in after.net.state_dict().items() if not torch.equal(x, before.net.state_dict()[name])}
    assert "fc.0.weight" in changed
    assert "transformer.transformer_blocks.0.attn.to_q.weight" in changed
    # Adapters leave all else as it is; without them all of the network learns.
    assert ("transformer.x_embedder.weight" in changed) == (adapter is None)
    for name, x in after.encoder.state_dict().items():
        assert torch.equal(x, before.encoder.state_dict()[name])


def test_the_loss_falls(clips: list[Clip], tmp_path: Path) -> None:
    spec = FinetuningSpec(steps=60, batch=4, warmup=0, learning_rate=3e-3, evaluate_every=30)
    history = finetune(create_tangoflux(None), "tiny", spec, clips, tmp_path / "training").history
    assert history[1].loss < 0.8 * history[0].loss


def test_clips_that_cannot_be_used_are_left_out(clips: list[Clip], tmp_path: Path) -> None:
    clips[0].path.write_bytes(b"no sound")
    sf.write(clips[1].path, np.zeros(8000), 16_000)
    spec = FinetuningSpec(steps=1, batch=2, warmup=0)
    trained = finetune(create_tangoflux(None), "tiny", spec, clips, tmp_path / "training")
    assert sorted(trained.quarantined) == ["clip 0", "clip 1"]
    with pytest.raises(HarkenError, match="0 clips are too few"):
        finetune(create_tangoflux(None), "tiny", spec, clips[:2], tmp_path / "none")


@pytest.mark.parametrize("seconds", [0.1, 0.5, 3.0])
def test_clips_have_the_form_that_was_asked_for(seconds: float) -> None:
    generator = create_tangoflux(None)
    form = SoundForm(round(seconds * 16_000), 16_000, -30.0)
    sampling = TangoFluxSampling(s0=0.3, steps=4)
    reference = (sound(seconds, 1), 16_000)
    first, again, different = (
        generator.generate("a fan", form, sampling, seed=0, item=item, reference=reference) for item in "aab"
    )
    # The longest clip of this generator is 1 s.
    assert first.shape == (min(form.samples, 16_000),)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, different)
    assert 20 * np.log10(np.sqrt(np.mean(first.astype(np.float64) ** 2))) == pytest.approx(-30.0, abs=0.1)


def test_noise_of_the_reference_decides_how_much_of_it_is_left() -> None:
    generator = create_tangoflux(None)
    form = SoundForm(8000, 16_000, -20.0)

    def made(s0: float, seed: int) -> NDArray[np.float32]:
        sampling = TangoFluxSampling(s0=s0, steps=4)
        return generator.generate("a fan", form, sampling, seed=0, item="a", reference=(sound(0.5, seed), 16_000))

    reference_S = sound(0.5, 1)
    reference_S = reference_S * (0.1 / np.sqrt(np.mean(reference_S**2)))
    errors = [float(np.abs(made(s0, 1) - reference_S).mean()) for s0 in (1e-5, 0.1, 0.5)]
    assert errors[0] < 1e-3 < errors[1] < errors[2]
    np.testing.assert_array_equal(made(1.0, 1), made(1.0, 2))


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path))
    monkeypatch.delenv("HARKEN_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match=r"the weights tangoflux are not .* harken weights fetch tangoflux"):
        create_tangoflux("tangoflux")
    with pytest.raises(WeightsError, match=r"there is no tangoflux.safetensors"):
        create_tangoflux(str(tmp_path))


def test_published_files_of_a_folder_are_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of the published files, with small networks; nothing goes to the network."""
    text = config.TextConfig(tokens="file", vocabulary=8, width=16, head_width=8, hidden=16, layers=1, heads=2)
    small = config.TangoFluxConfig(
        layers=1, single_layers=1, heads=1, axes=(4, 6, 6), channels=4, latents=80, seconds=80.9 * 2048 / 44_100,
        text=text, autoencoder=config.OobleckConfig(multiples=(1, 1, 1, 1, 1), width=4),
    )  # fmt: skip
    monkeypatch.setattr(tangoflux_weights, "published_config", lambda settings: small)
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: pytest.fail("a library asked the network"))
    net, encoder, codec = TangoFlux(small), text_encoder(text), SoundCodec(small)
    states = {name: x for name, x in encoder.state_dict().items() if name != "encoder.embed_tokens.weight"}
    network = {**net.state_dict(), **{f"text_encoder.{name}": x for name, x in states.items()}}
    save_file({name: x.clone() for name, x in network.items()}, tmp_path / "tangoflux.safetensors")
    vae = {name.removeprefix("net."): x.clone() for name, x in codec.autoencoder.state_dict().items()}
    save_file(vae, tmp_path / "vae.safetensors")
    (tmp_path / "config.json").write_text("{}")
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "fan": 4}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    loaded = create_tangoflux(str(tmp_path))
    for name, x in net.state_dict().items():
        assert torch.equal(loaded.net.state_dict()[name], x)
    form, sampling = SoundForm(8000, 16_000, -20.0), TangoFluxSampling(steps=1, s0=0.5)
    made_S = loaded.generate("a fan", form, sampling, seed=0, item="1", reference=(sound(0.5, 0), 16_000))
    assert made_S.shape == (8000,)
    assert np.isfinite(made_S).all()
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"there is no tokenizer.json"):
        create_tangoflux(str(tmp_path))

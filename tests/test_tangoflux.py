"""TangoFlux agrees with its reference implementation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from harken.core.errors import HarkenError
from harken.generation.config import SIZES, TangoFluxConfig, TextConfig
from harken.generation.flow import flow_loss, noisy_at, sample, times_of
from harken.generation.latents import SoundCodec
from harken.generation.tangoflux import Conditioning, TangoFlux
from harken.generation.tangoflux_settings import levels
from harken.generation.text import Tokens, text_encoder, text_states
from harken.weights.catalog import require_entry
from harken.weights.structure import structure_digest

PUBLISHED = SIZES["full"]
GOLDEN = Path(os.environ.get("HARKEN_SHARED", "/nonexistent")) / "golden/tangoflux"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    if not GOLDEN.is_dir():
        pytest.skip("needs the numbers of the reference implementation (HARKEN_SHARED)")
    settings = json.loads((GOLDEN / "tangoflux_seed11.json").read_text())
    weights = {name: x.float() for name, x in load_file(GOLDEN / "tangoflux_seed11_weights.safetensors").items()}
    config, t5 = settings["config"], settings["t5"]
    text = TextConfig(
        tokens="bytes", vocabulary=t5["vocab_size"], width=t5["d_model"], head_width=t5["d_kv"], hidden=t5["d_ff"],
        layers=t5["num_layers"], heads=t5["num_heads"],
    )  # fmt: skip
    net = TangoFlux(TangoFluxConfig(
        layers=config["num_layers"], single_layers=config["num_single_layers"], heads=config["num_attention_heads"],
        channels=config["in_channels"], latents=645, seconds=config["max_duration"], text=text,
    ))  # fmt: skip
    encoder = text_encoder(text)
    prefix = "text_encoder."
    net.load_state_dict({name: x for name, x in weights.items() if not name.startswith(prefix)})
    of_text = {name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)}
    encoder.load_state_dict({**of_text, "encoder.embed_tokens.weight": of_text["shared.weight"]})
    numbers = load_file(GOLDEN / "tangoflux_seed11_io.safetensors")
    return {"net": net.eval(), "encoder": encoder, "settings": settings, **numbers}


def test_the_catalogue_knows_the_structure_of_the_published_networks() -> None:
    """`harken weights add` takes no file of other tensors than these networks have."""
    with torch.device("meta"):
        net, encoder, codec = TangoFlux(PUBLISHED), text_encoder(PUBLISHED.text), SoundCodec(PUBLISHED)
    tensors = {**net.state_dict(), **{f"text_encoder.{name}": x for name, x in encoder.state_dict().items()}}
    # safetensors files have a shared tensor once.
    once = {name: x for name, x in tensors.items() if name != "text_encoder.encoder.embed_tokens.weight"}
    sound = {name.removeprefix("net."): x for name, x in codec.autoencoder.state_dict().items()}
    assert require_entry("tangoflux").structures == (structure_digest(once), structure_digest(tensors))  # type: ignore[arg-type]
    assert require_entry("tangoflux-vae").structures == (structure_digest(sound),)


def test_loss_and_gradients(golden: dict[str, Any]) -> None:
    net: TangoFlux = golden["net"]
    states = text_states(golden["encoder"], Tokens(golden["input_ids"], golden["attention_mask"]))
    condition = net.condition(*states, golden["duration"])
    time_B = times_of(golden["u"])
    noisy_BTD = noisy_at(golden["latents"], golden["noise"], time_B)
    velocity_BTD = net(noisy_BTD, time_B, condition)
    loss = flow_loss(velocity_BTD, golden["latents"], golden["noise"])
    close(states.states_BLD, golden["text_states"])
    close(condition.context_BLD, golden["context"])
    close(condition.pooled_BD, golden["pooled_projection"])
    close(time_B, golden["timestep_over_1000"])
    close(noisy_BTD, golden["noisy_input"])
    close(velocity_BTD, golden["prediction"])
    assert float(loss.detach()) == pytest.approx(golden["settings"]["loss"], rel=1e-5)
    loss.backward()
    named = dict(net.named_parameters())
    for name, gradient in golden.items():
        if name.startswith("grad."):
            close(named[name.removeprefix("grad.")].grad, gradient)
    norm = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(golden["settings"]["grad_norm_without_text_encoder"], rel=1e-5)
    net.zero_grad()


def test_guided_sampling(golden: dict[str, Any]) -> None:
    net: TangoFlux = golden["net"]
    seconds_B = torch.tensor([golden["settings"]["inference"]["duration"]])
    condition, unconditional = (
        net.condition(*text_states(golden["encoder"], Tokens(ids, mask)), seconds_B)
        for ids, mask in (
            (golden["inference_input_ids"], torch.ones_like(golden["inference_input_ids"])),
            (golden["uncond_input_ids"], golden["uncond_attention_mask"]),
        )
    )
    with torch.no_grad():
        result_BTD = sample(net, golden["start_latents"], condition, unconditional, steps=4, guidance=3.0)
    close(result_BTD, golden["result_latents"])


def test_a_reference_is_kept_or_ignored(golden: dict[str, Any]) -> None:
    """The less noise a reference begins with, the closer to it the result; with noise alone nothing is left of it."""
    net: TangoFlux = golden["net"]
    reference_BTD, noise_BTD = golden["latents"][:1], golden["start_latents"]
    width = net.config.text.width
    condition = net.condition(torch.randn(1, 3, width), torch.ones(1, 3), torch.tensor([7.0]))
    empty = net.condition(torch.zeros(1, 3, width), torch.ones(1, 3), torch.tensor([7.0]))

    def made(start: float, reference_BTD: Tensor) -> Tensor:
        with torch.no_grad():
            return sample(
                net, noise_BTD, Conditioning(*condition), Conditioning(*empty), steps=8, guidance=2.0,
                reference_BTD=reference_BTD, start=start,
            )  # fmt: skip

    distances = [float((made(start, reference_BTD) - reference_BTD).norm()) for start in (1e-5, 1e-2, 0.2, 0.6)]
    assert distances == sorted(distances)
    close(made(1e-6, reference_BTD), reference_BTD)
    assert torch.equal(made(1.0, reference_BTD), made(1.0, -reference_BTD))


@pytest.mark.parametrize("start", [0.0, -0.1, 1.5, float("nan")])
def test_noise_of_a_reference_is_a_share(start: float) -> None:
    with pytest.raises(HarkenError, match="s0 is the share of noise"):
        levels(8, start)


def close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)

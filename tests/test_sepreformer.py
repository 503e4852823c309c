"""SepReformer and its losses: the reference implementation's outputs, losses, gradients; lengths; silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from harken.separation.config import SIZES, SepReformerConfig, config_of
from harken.separation.losses import magnitude_loss, separation_loss, si_snr_db, time_loss
from harken.separation.sepreformer import Separated, SepReformer
from harken.weights.formats import read_contents

GOLDEN = {"8 kHz": "encoders/sepreformer_tiny", "16 kHz": "separation/sepreformer16k_seed11"}
SMALL = SepReformerConfig(
    sample_rate=16_000, encoder_channels=16, kernel=32, stride=16, features=8, heads=2, stages=2, local_kernel=5,
    distances=50,
)  # fmt: skip


def official(file: Path, **changes: Any) -> SepReformer:
    """A network of a published file."""
    tensors = {
        name.removeprefix("model_state_dict."): torch.from_numpy(array)
        for name, array in read_contents(file, None).tensors.items()
    }
    net = SepReformer(config_of(tensors, sample_rate=16_000).model_copy(update=changes))
    net.load_state_dict(tensors)
    return net


@pytest.mark.parametrize("name", GOLDEN.values(), ids=list(GOLDEN))
def test_outputs_are_those_of_the_reference(shared: Path, name: str) -> None:
    net = official(shared / f"golden/{name}.pt").eval()
    tensors = load_file(shared / f"golden/{name}_io.safetensors")
    prefix = "eval_" if "eval_source_0" in tensors else ""
    with torch.no_grad():
        outputs = net(tensors["mixture"], auxiliary=True)
    assert outputs.stages_LBKS is not None
    for source in (0, 1):
        torch.testing.assert_close(
            outputs.sources_BKS[:, source], tensors[f"{prefix}source_{source}"], atol=1e-5, rtol=0
        )
        for stage in range(net.config.stages):
            expected = tensors[f"{prefix}aux_{stage}_{source}"]
            torch.testing.assert_close(outputs.stages_LBKS[stage, :, source], expected, atol=1e-5, rtol=0)


def test_a_training_step_is_that_of_the_reference(shared: Path) -> None:
    file = shared / f"golden/{GOLDEN['16 kHz']}"
    net = official(file.with_suffix(".pt"), dropout=0.0).train()
    tensors = load_file(f"{file}_io.safetensors")
    numbers = json.loads(file.with_suffix(".json").read_text())
    outputs = net(tensors["mixture"], auxiliary=True)
    for source in (0, 1):
        torch.testing.assert_close(outputs.sources_BKS[:, source], tensors[f"train_source_{source}"], atol=1e-5, rtol=0)
    for order, expected in numbers["losses"].items():
        if "," in order:
            targets = torch.stack([tensors[name] for name in order.split(",")], dim=1)
            assert time_loss(outputs.sources_BKS, targets, permute=True).item() == pytest.approx(
                expected["time"], rel=1e-5
            )
            for stage_BKS, value in zip(outputs.stages_LBKS, expected["magnitude"], strict=True):
                assert magnitude_loss(stage_BKS, targets, permute=True).item() == pytest.approx(value, rel=1e-5)
            loss = separation_loss(outputs, targets, permute=True)
            assert loss.item() == pytest.approx(expected["total"], rel=1e-5)
    targets = torch.stack([tensors["target_0"], tensors["target_1"]], dim=1)
    separation_loss(outputs, targets, permute=True).backward()
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), numbers["clip_norm"])
    assert norm.item() == pytest.approx(numbers["grad_norm_before_clip"], rel=1e-5)
    for name, expected in tensors.items():
        kind, _, parameter = name.partition(".")
        if kind == "clipped_grad":
            gradient = net.get_parameter(parameter).grad
            assert gradient is not None
            if "pe_k" in parameter:
                gradient = gradient[gradient.abs().sum(dim=1) > 0]
            torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)
        elif kind.endswith("after"):
            torch.testing.assert_close(net.get_buffer(parameter), expected, atol=1e-6, rtol=1e-5)


def test_losses_of_known_estimates(shared: Path) -> None:
    file = shared / f"golden/{GOLDEN['16 kHz']}"
    tensors = load_file(f"{file}_io.safetensors")
    losses = json.loads(file.with_suffix(".json").read_text())["losses"]
    targets = torch.stack([tensors["target_0"], tensors["target_1"]], dim=1)
    leaky = targets + 0.3 * targets.flip(1)
    for permute in (False, True):
        assert time_loss(leaky, targets, permute=permute).item() == pytest.approx(losses["loss_of_leak_0.3"]["time"])
        value = magnitude_loss(leaky, targets, permute=permute).item()
        assert value == pytest.approx(losses["loss_of_leak_0.3"]["magnitude"], rel=1e-5)
    near = targets * (1 + 1e-6)
    assert time_loss(near.flip(1), targets, permute=True).item() == losses["loss_of_near_perfect"]["time_swapped"]
    assert time_loss(near.flip(1), targets).item() > 0


def test_the_ratio_is_of_the_energies_whatever_the_scale() -> None:
    time_S = torch.arange(1600) / 1600
    target_S, error_S = torch.sin(2 * torch.pi * 50 * time_S), 0.1 * torch.sin(2 * torch.pi * 70 * time_S)
    assert si_snr_db(target_S + error_S, target_S).item() == pytest.approx(20.0, abs=1e-3)
    assert si_snr_db(-3 * (target_S + error_S) + 0.5, 7 * target_S).item() == pytest.approx(20.0, abs=1e-3)


@pytest.mark.parametrize("loss", [time_loss, magnitude_loss])
@pytest.mark.parametrize("permute", [False, True])
def test_silence_has_finite_losses_and_gradients(loss: Callable[..., Tensor], permute: bool) -> None:
    sound, silence = torch.randn(2, 2, 2000), torch.zeros(2, 2, 2000)
    half_silent = torch.stack([sound[:, 0], silence[:, 1]], dim=1)
    for estimate in (sound, silence):
        for target in (sound, silence, half_silent):
            learned = estimate.clone().requires_grad_()
            value = loss(learned, target, permute=permute)
            (gradient,) = torch.autograd.grad(value, learned)
            assert value.isfinite()
            assert gradient.isfinite().all()
    assert loss(sound, silence, permute=permute) == 0


@pytest.mark.parametrize("samples", [1, 31, 32, 33, 4999])
def test_outputs_are_as_long_as_the_mixture(samples: int) -> None:
    net = SepReformer(SMALL).eval()
    with torch.no_grad():
        outputs = net(torch.randn(3, samples), auxiliary=True)
    assert outputs.sources_BKS.shape == (3, 2, samples)
    assert outputs.stages_LBKS.shape == (2, 3, 2, samples)
    assert outputs.sources_BKS.isfinite().all()


def test_three_sources_of_separate_splits_learn() -> None:
    torch.manual_seed(0)
    net = SepReformer(SMALL.model_copy(update={"sources": 3, "shared_split": False}))
    targets = torch.randn(2, 3, 1600)
    outputs = net(targets.sum(dim=1), auxiliary=True)
    assert outputs.sources_BKS.shape == (2, 3, 1600)
    separation_loss(outputs, targets).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert "separator.spk_split_blocks.2.norm.weight" in net.state_dict()
    assert config_of(net.state_dict(), sample_rate=16_000, stride=16).sources == 3
    assert separation_loss(Separated(outputs.sources_BKS, None), targets).isfinite()


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        nets = {name: SepReformer(config) for name, config in {**SIZES, "published": SepReformerConfig()}.items()}
    counts = {name: sum(parameter.numel() for parameter in net.parameters()) for name, net in nets.items()}
    assert counts["published"] == 14_691_584
    assert len(nets["published"].state_dict()) == 1390
    assert counts["tiny"] < 1e6 < counts["base"] < counts["large"]


@pytest.mark.parametrize("wrong", [{"features": 9}, {"stride": 33}, {"local_kernel": 4}, {"sources": 0}])
def test_architectures_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        SepReformerConfig(**{**SMALL.model_dump(), **wrong})

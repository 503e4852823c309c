"""Xception against numbers of the published implementation."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from conftest import SHARED
from harken.generation.xception import Xception
from harken.generation.xception_settings import XceptionConfig

GOLDEN = SHARED / "golden" / "xception"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden numbers of Xception here")


def golden() -> tuple[Xception, dict[str, torch.Tensor], dict[str, object]]:
    settings = json.loads((GOLDEN / "xception_seed11.json").read_text())
    widths = settings["widths(conv1,conv2,block1,block2,block3-11,block12,conv3,conv4)"]
    net = Xception(XceptionConfig(channels=tuple(widths)), settings["classes"], settings["in_chans"])
    net.load_state_dict(safetensors.torch.load_file(GOLDEN / "xception_seed11_weights.safetensors"))
    return net, safetensors.torch.load_file(GOLDEN / "xception_seed11_io.safetensors"), settings


def test_outputs_are_those_of_the_published_network() -> None:
    net, io, _ = golden()
    with torch.no_grad():
        features = net.eval().features(io["input"])
        logits = net(io["input"])
    torch.testing.assert_close(features, io["features"], atol=1e-4, rtol=0)
    torch.testing.assert_close(features.mean(dim=(2, 3)), io["pooled"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, io["logits"], atol=1e-4, rtol=0)


def test_a_step_of_training_is_that_of_the_published_network() -> None:
    net, io, settings = golden()
    logits = net.train()(io["input"])
    loss = F.cross_entropy(logits, io["labels"].long())
    loss.backward()
    torch.testing.assert_close(logits.detach(), io["train_logits"], atol=1e-4, rtol=0)
    assert loss.item() == pytest.approx(settings["cross_entropy"], rel=1e-5)
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    norm = torch.stack([x.norm() for x in gradients.values() if x is not None]).norm()
    assert float(norm) == pytest.approx(settings["grad_norm"], rel=1e-5)
    for name, expected in io.items():
        if name.startswith("grad."):
            gradient = gradients[name.removeprefix("grad.")]
            assert gradient is not None
            torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(net.bn1.running_mean, io["bn1_running_mean_after"], atol=1e-5, rtol=0)


def test_the_full_network_has_the_published_tensors() -> None:
    shapes = json.loads((GOLDEN / "xception_full_state_shapes.json").read_text())
    with torch.device("meta"):
        net = Xception(classes=60)
    assert {name: list(x.shape) for name, x in net.state_dict().items()} == shapes
    assert sum(parameter.numel() for parameter in net.parameters()) == 20_929_316

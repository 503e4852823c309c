"""Networks that get their weights later are built without memory, and without importing torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from harken.encoders.without_values import without_values


def test_modules_have_shapes_and_no_memory() -> None:
    with without_values():
        modules = [nn.Embedding(5, 3), nn.Conv2d(1, 2, 3), nn.LayerNorm(4), nn.BatchNorm2d(2)]
    for module in modules:
        assert all(tensor.device.type == "meta" for tensor in module.state_dict().values())
    assert modules[0].weight.shape == (5, 3)


def test_the_generator_of_random_numbers_is_not_moved() -> None:
    before = torch.random.get_rng_state()
    with without_values():
        nn.Linear(3, 4)
        nn.init.xavier_normal_(torch.empty(2, 2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_beats_is_built_without_the_compiler() -> None:
    program = (
        "import sys; from harken.encoders import create_encoder; "
        "create_encoder('beats', {'depth': 1, 'width': 16, 'heads': 2, 'ffn': 16, 'patch_width': 16, 'buckets': 8, "
        "'max_distance': 16, 'conv_kernel': 3, 'conv_groups': 2}); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""Networks that get their weights later are built without memory, and draw no values for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harken.encoders import create_encoder, tiny_config
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


class _Drawn(TorchDispatchMode):
    """Devices of the tensors that are filled with normal numbers; of those on `meta`, torch's compiler computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name == "aten::normal_":
            self.devices.append(args[0].device.type)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["beats", "dasheng", "dual_branch", "eat", "efficientat", "fisher"])
def test_encoders_draw_no_values_without_memory(name: str) -> None:
    with _Drawn() as drawn:
        nn.Embedding(2, 2, device="meta")
        create_encoder(name, tiny_config(name))
    assert drawn.devices[0] == "meta"
    assert set(drawn.devices[1:]) <= {"cpu"}

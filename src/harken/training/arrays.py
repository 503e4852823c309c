"""Modules and optimisers as arrays by name, for safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Arrays = Mapping[str, NDArray[Any]]


def module_arrays(module: nn.Module) -> dict[str, NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load_module(module: nn.Module, arrays: Arrays) -> None:
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})


def optimiser_arrays(optimiser: torch.optim.Optimizer) -> dict[str, NDArray[Any]]:
    """Moments by number of the parameter and name."""
    return {
        f"{number}.{name}": value.detach().cpu().numpy().copy()
        for number, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, arrays: Arrays) -> None:
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        number, moment = name.split(".")
        moments.setdefault(int(number), {})[moment] = torch.from_numpy(np.array(array))
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def over(arrays: Arrays, name: str) -> dict[str, NDArray[Any]]:
    """`name.` in front of each."""
    return {f"{name}.{key}": array for key, array in arrays.items()}


def under(arrays: Arrays, name: str) -> dict[str, NDArray[Any]]:
    """Those with `name.` in front, without it."""
    return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}

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
    """State dict of a module as NumPy arrays, to be written at once: on the CPU they share its memory."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}


def load_module(module: nn.Module, arrays: Arrays) -> None:
    """Load arrays of `module_arrays`. Raises RuntimeError for other names or shapes."""
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})


def optimiser_arrays(optimiser: torch.optim.Optimizer) -> dict[str, NDArray[Any]]:
    """Moments of an optimiser, named `<parameter index>.<moment>`; as of `module_arrays`."""
    return {
        f"{number}.{name}": value.detach().cpu().numpy()
        for number, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, arrays: Arrays) -> None:
    """Load arrays of `optimiser_arrays`; hyper-parameters stay as they are."""
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        number, moment = name.split(".")
        moments.setdefault(int(number), {})[moment] = torch.from_numpy(np.array(array))
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def over(arrays: Arrays, name: str) -> dict[str, NDArray[Any]]:
    """Arrays with the prefix `name.` added."""
    return {f"{name}.{key}": array for key, array in arrays.items()}


def under(arrays: Arrays, name: str) -> dict[str, NDArray[Any]]:
    """Arrays with the prefix `name.`, which is removed."""
    return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}

"""Low-rank adapters of linear layers: Hu et al., "LoRA", ICLR 2022.

Arithmetic, initial values and names of parameters are those of the package peft, whose checkpoints these are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harken.core.errors import HarkenError

#: name of the only adapter of a layer, in peft's names of parameters
_ADAPTER = "default"


class AdaptedLinear(nn.Module):
    """y = W x + b + (alpha / rank) B A dropout(x), with A (rank, inputs) random and B (outputs, rank) zero at first.

    A is drawn from torch's global generator.
    """

    def __init__(self, base_layer: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"adapters of rank {rank} cannot be")
        self.base_layer = base_layer
        self.scaling = alpha / rank
        self.lora_dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        down, up = nn.Linear(base_layer.in_features, rank, bias=False), nn.Linear(rank, base_layer.out_features, False)
        # Drawn a second time, as peft does: seeds give the same adapters.
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        nn.init.zeros_(up.weight)
        self.lora_A, self.lora_B = nn.ModuleDict({_ADAPTER: down}), nn.ModuleDict({_ADAPTER: up})
        for adapter in (down, up):
            adapter.to(device=base_layer.weight.device, dtype=base_layer.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        down, up = self.lora_A[_ADAPTER], self.lora_B[_ADAPTER]
        y: Tensor = self.base_layer(x)
        low_rank: Tensor = up(down(self.lora_dropout(x.to(self.base_layer.weight.dtype))))
        return (y + low_rank * self.scaling).to(y.dtype)

    @property
    def weight(self) -> Tensor:
        """(outputs, inputs) of the layer that is adapted."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """(outputs,) of the layer that is adapted."""
        return self.base_layer.bias

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer with W + (alpha / rank) B A. Raises HarkenError for weights that are not finite."""
        weight, down, up = self.base_layer.weight, self.lora_A[_ADAPTER].weight, self.lora_B[_ADAPTER].weight
        assert isinstance(down, Tensor)
        assert isinstance(up, Tensor)
        merged = weight + ((up.float() @ down.float()) * self.scaling).to(weight.dtype)
        if not torch.isfinite(merged).all():
            raise HarkenError(
                "the adapters hold values that are not finite", next_step="Train with a lower learning rate"
            )
        self.base_layer.weight.data = merged
        return self.base_layer


def add_lora_to(
    net: nn.Module, targets: str | Sequence[str], rank: int, alpha: float | None = None, dropout: float = 0.0
) -> None:
    """Add adapters to linear layers of a network, in place; its other parameters are frozen.

    targets: a regular expression of whole names, or ends of names. alpha: None for the rank, a factor of one. Raises
    ValueError where they name no layer, or one that is not linear.
    """

    def is_target(name: str) -> bool:
        if isinstance(targets, str):
            return re.fullmatch(targets, name) is not None
        return any(name == target or name.endswith(f".{target}") for target in targets)

    adapted = [name for name, _ in net.named_modules() if is_target(name)]
    if not adapted:
        raise ValueError(f"{type(net).__name__} has no layer that {targets} names")
    net.requires_grad_(False)
    for name in adapted:
        layer = net.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} is no linear layer")
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, AdaptedLinear(layer, rank, rank if alpha is None else alpha, dropout))


def has_lora(net: nn.Module) -> bool:
    """Whether `net` has adapters that are not merged."""
    return any(isinstance(module, AdaptedLinear) for module in net.modules())


def merge_lora(net: nn.Module) -> None:
    """Merge adapters into the weights that they adapt, in place; original layers and tensor names remain.

    Outputs are equal up to rounding, at the cost of the original network. Weights stay frozen. Raises HarkenError for
    weights that are not finite; does nothing without adapters.
    """
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, AdaptedLinear):
                setattr(parent, name, child.merged())

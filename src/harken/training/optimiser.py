"""AdamW with learning rates by depth, and their course over the steps."""

from __future__ import annotations

import math
import re
from typing import Literal

import torch
from torch import nn

#: a block of an encoder, in the names of parameters
_BLOCK = re.compile(r"parts\.(\d+)\.net\.(?:encoder\.layers|blocks)\.(\d+)\.")
_NETWORK = re.compile(r"parts\.(\d+)\.net\.")


def learning_rate_factor(step: int, *, steps: int, warmup: int, schedule: Literal["constant", "cosine"]) -> float:
    """Part of the full learning rate at a step, 1 .. steps.

    step / warmup while it rises; then 1, or (1 + cos(pi (step - 1 - warmup) / (steps - warmup))) / 2 (Loshchilov and
    Hutter, ICLR 2017, eq. 5, steps counted from 0 after the warm-up, as in torch's CosineAnnealingLR): the first step
    after the warm-up has the full rate, and the last one still learns, as the rate would reach zero only after it.
    """
    if step <= warmup:
        return step / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - 1 - warmup) / max(steps - warmup, 1)))


def parameter_groups(
    module: nn.Module, *, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, object]]:
    """Groups for `torch.optim.AdamW`: parameters of one learning rate and weight decay.

    The learning rate of block b of B is learning_rate * layer_decay^(B - b), b counted from 1; what comes before the
    blocks is b = 0, what comes after them and all that is no encoder has the full rate (Clark et al., ELECTRA, ICLR
    2020; He et al., MAE, 2022). Vectors (norms, biases, scales) and the centres of losses have no weight decay.
    module: whose parameters' names contain those of an `ASDModel`. Only parameters that may learn, in their order.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    blocks: dict[str, int] = {}
    for name, _ in named:
        if found := _BLOCK.search(name):
            part, number = found.groups()
            blocks[part] = max(blocks.get(part, 0), int(number) + 1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    passed: set[str] = set()
    for name, parameter in named:
        rate = learning_rate
        if layer_decay < 1 and (inside := _NETWORK.search(name)) and inside[1] in blocks:
            part = inside[1]
            found = _BLOCK.search(name)
            if found:
                passed.add(part)
                rate *= layer_decay ** (blocks[part] - int(found[2]) - 1)
            elif part not in passed:
                rate *= layer_decay ** blocks[part]
        plain = parameter.ndim < 2 or ".centres" in name or ".prototypes" in name
        groups.setdefault((rate, 0.0 if plain else weight_decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def adamw(groups: list[dict[str, object]]) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019) in its usual setting."""
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)


def set_learning_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Let each group learn at `factor` of its full rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor

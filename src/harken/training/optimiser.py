"""AdamW with learning rates by depth, and their course over the steps."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from harken.encoders.spectrogram_net import SpectrogramNet

#: added to the root of the second moment
EPSILON = 1e-8


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
    module: anywhere in which there may be networks of encoders. Only parameters that may learn, in their order.
    """
    depth_of = _depths(module) if layer_decay < 1 else {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = learning_rate * layer_decay ** depth_of.get(id(parameter), 0)
        plain = parameter.ndim < 2 or ".centres" in name or ".prototypes" in name
        groups.setdefault((rate, 0.0 if plain else weight_decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _depths(module: nn.Module) -> dict[int, int]:
    """Of every parameter of an encoder with blocks that may learn, by its id: how many such blocks stand behind it.

    Parameters before the first block count all of them, those after it none.
    """
    depths: dict[int, int] = {}
    for net in module.modules():
        if not isinstance(net, SpectrogramNet):
            continue
        learning = [[p for p in block.parameters() if p.requires_grad] for block in net.blocks_in_order]
        count = max((number for number, block in enumerate(learning, start=1) if block), default=0)
        of_blocks = {id(p): count - number for number, block in enumerate(learning, start=1) for p in block}
        passed = not of_blocks
        for parameter in net.parameters():
            if parameter.requires_grad:
                passed |= id(parameter) in of_blocks
                depths[id(parameter)] = of_blocks.get(id(parameter), 0 if passed else count)
    return depths


def adamw(groups: list[dict[str, object]], betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019). betas: decays of the moments."""
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=EPSILON)


def set_learning_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Let each group learn at `factor` of its full rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


def correct_epsilon(optimiser: torch.optim.Optimizer, step: int) -> None:
    """Before step 1, 2, ...: let epsilon be added before the bias correction, as fairseq's Adam and Kingma and Ba's
    first version do (arXiv 1412.6980v1)."""
    for group in optimiser.param_groups:
        group["eps"] = EPSILON / (1 - group["betas"][1] ** step) ** 0.5

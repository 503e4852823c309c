"""Adaptive scale of AdaCos (Zhang et al., CVPR 2019), which needs no tuning."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harken.training.losses.base import ClassLoss, centres_of

#: The published rule may leave these bounds: two classes begin with a scale of zero, and where centres of the own class
#: count as well, embeddings that lie on their centres raise it by sqrt(2) in every step, without end.
SCALE_RANGE = (0.5, 1000.0)


class AdaptiveScaleLoss(ClassLoss):
    """Base class of softmax losses without margin and with an optional adaptive scale.

    centres: their number. logits: N, for the initial scale. The other arguments are those of the subclasses.
    """

    soft_targets = True
    scale: Tensor

    def __init__(
        self,
        dim: int,
        classes: int,
        centres: int,
        *,
        logits: int,
        dynamic: bool,
        scale: float | None,
        trainable: bool,
        seed: int,
    ) -> None:
        super().__init__(dim, classes)
        self.dynamic = dynamic
        #: (centres, D), class by class
        self.centres = centres_of(centres, dim, seed, trainable=trainable)
        self.register_buffer("scale", first_scale(logits, scale))


def first_scale(logits: int, given: float | None = None) -> Tensor:
    """sqrt(2) log(N - 1) for N logits (sec. 4.1), or what is given; a scalar. Raises ValueError if that is no scale."""
    if given is not None:
        if not 0 < given < math.inf:
            raise ValueError("scale > 0")
        return torch.tensor(float(given))
    return torch.tensor(max(math.sqrt(2) * math.log(max(logits - 1, 1)), SCALE_RANGE[0]))


@torch.no_grad()
def next_scale(logits_BN: Tensor, angle_B: Tensor) -> Tensor:
    """log(mean over clips of sum over N of exp(logit)) / cos(min(pi / 4, median angle)) (sec. 4.2), a scalar.

    logits_BN: scaled by the scale before, those that count. angle_B: between each clip and its class. Of an even
    number of angles the lower one of the middle is taken.
    """
    sum_B = torch.logsumexp(logits_BN, dim=1)
    log_mean = torch.logsumexp(sum_B, dim=0) - math.log(len(sum_B))
    return (log_mean / torch.cos(angle_B.median().clamp(max=math.pi / 4))).clamp(*SCALE_RANGE)


def angles(cosines: Tensor) -> Tensor:
    """0 to pi; without gradient."""
    return torch.acos(cosines.detach().clamp(-1, 1))

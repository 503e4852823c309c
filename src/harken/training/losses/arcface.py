"""ArcFace: softmax over angles, the own class with an additive margin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harken.training.losses.base import ClassLoss, centres_of, cosines, cross_entropy


class MarginLoss(ClassLoss):
    """A softmax of cosines with a scale s, that of the own class with an angular margin m."""

    def __init__(self, dim: int, classes: int, scale: float, margin: float) -> None:
        """Raises ValueError for values that make no loss."""
        super().__init__(dim, classes)
        if not (0 < scale < math.inf and 0 <= margin < math.pi):
            raise ValueError("scale > 0 and 0 <= margin < pi")
        self.scale = scale
        self.margin = margin


class ArcFace(MarginLoss):
    """Additive angular margin loss (Deng et al., CVPR 2019, eq. 3).

        L = -log( exp(s cos(theta_y + m)) / (exp(s cos(theta_y + m)) + sum_{j != y} exp(s cos theta_j)) )

    theta_j: angle between embedding and centre of class j. Beyond theta_y = pi - m, where cos(theta + m) would rise
    again, cos(theta) - m sin(m) stands in, as in the authors' code. Embeddings that equal a centre or its opposite
    have a finite gradient.

    scale, margin: s and m; those of THUEE, SJTU-AITHU (sec. 2.4). seed: of the centres.
    """

    def __init__(self, dim: int, classes: int, scale: float = 30.0, margin: float = 0.2, seed: int = 0) -> None:
        super().__init__(dim, classes, scale, margin)
        self.centres = centres_of(classes, dim, seed)

    def _logits(self, x_BD: Tensor) -> Tensor:
        return self.scale * cosines(x_BD, self.centres)

    def _loss(self, x_BD: Tensor, target: Tensor) -> Tensor:
        return margin_cross_entropy(cosines(x_BD, self.centres), target, self.scale, self.margin)


def with_margin(cosine: Tensor, margin: float) -> Tensor:
    """cos(theta + m) of cos(theta), falling all the way from theta = 0 to pi."""
    squares = 1 - cosine * cosine
    # The slope of a root at zero is infinite; there the margin turns the cosine only.
    inside = squares > torch.finfo(cosine.dtype).eps
    sine = torch.where(inside, torch.where(inside, squares, 1.0).sqrt(), 0.0)
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine >= -math.cos(margin), turned, cosine - margin * math.sin(margin))


def margin_cross_entropy(cosines_BC: Tensor, target_B: Tensor, scale: float, margin: float) -> Tensor:
    """Softmax cross-entropy of scaled cosines, that of the own class with a margin."""
    own_B1 = target_B.long()[:, None]
    turned_B1 = with_margin(cosines_BC.gather(1, own_B1), margin)
    return cross_entropy(scale * cosines_BC.scatter(1, own_B1, turned_B1), target_B)

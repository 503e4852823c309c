"""Sub-cluster AdaCos: several centres per class, adaptive scale."""

from __future__ import annotations

import torch
from torch import Tensor

from harken.training.losses.adaptive_scale import AdaptiveScaleLoss, angles, next_scale
from harken.training.losses.base import cosines, cross_entropy, shares


class SCAdaCos(AdaptiveScaleLoss):
    """Sub-cluster AdaCos (Wilkinghoff, IJCNN 2021).

        P(c | x) = sum_k exp(s cos theta_ck) / sum_jk exp(s cos theta_jk),    L = - sum_c y_c log P(c | x)

    theta_ck: angle between embedding and centre k of class c. There is no margin; a large scale has the same
    effect. The scale is initialised as sqrt(2) log(C K - 1) and updated in training before each step:

        s <- log(mean over clips of sum_ck exp(s cos theta_ck)) / cos(min(pi / 4, median over clips of theta))

    with theta = sum_ck y_c theta_ck: the angles to all centres of a class are summed, as in the author's code, so
    that in practice pi / 4 applies. With K = 1 this differs from AdaCos in that the true class is included in the sum.

    Targets may be soft labels (mixup). subclusters: K. dynamic: adapt the scale, else it is constant. scale: initial
    value instead of that above. trainable: train the centres, else they stay as initialised. seed: of the centres.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        subclusters: int = 16,
        dynamic: bool = True,
        scale: float | None = None,
        trainable: bool = True,
        seed: int = 0,
    ) -> None:
        if subclusters < 1:
            raise ValueError("subclusters >= 1")
        centres = classes * subclusters
        super().__init__(
            dim, classes, centres, logits=centres, dynamic=dynamic, scale=scale, trainable=trainable, seed=seed
        )
        self.subclusters = subclusters

    def _loss(self, x_BD: Tensor, target: Tensor) -> Tensor:
        cosines_BM = cosines(x_BD, self.centres)
        if self.dynamic and self.training:
            angles_BCK = angles(cosines_BM).reshape(-1, self.classes, self.subclusters)
            angle_B = (shares(target, self.classes, cosines_BM) * angles_BCK.sum(dim=2)).sum(dim=1)
            self.scale.copy_(next_scale(self.scale * cosines_BM.detach(), angle_B))
        return cross_entropy(self._class_logits(cosines_BM), target)

    def _logits(self, x_BD: Tensor) -> Tensor:
        return self._class_logits(cosines(x_BD, self.centres))

    def _class_logits(self, cosines_BM: Tensor) -> Tensor:
        # A softmax over all centres, summed by class, equals the softmax of these.
        # A copy of the scale: the next step changes it while this one may still be differentiated.
        logits_BCK = (self.scale.clone() * cosines_BM).reshape(-1, self.classes, self.subclusters)
        return torch.logsumexp(logits_BCK, dim=2)

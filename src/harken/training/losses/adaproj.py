"""AdaProj: each class is a subspace; adaptive scale."""

from __future__ import annotations

import torch
from torch import Tensor

from harken.training.losses.adaptive_scale import AdaptiveScaleLoss, angles, next_scale
from harken.training.losses.base import cross_entropy, precise, shares, unit


class AdaProj(AdaptiveScaleLoss):
    """Adaptively scaled angular margin subspace projections (Wilkinghoff, arXiv 2403.14179).

        p_c(x) = sum_k <x, w_ck> w_ck,    cos theta_c = <x, p_c(x) / |p_c(x)|>,    logit_c = s cos theta_c

    with cross-entropy. (Equivalent to the squared distance of x from its projection on the sphere, 2 - 2 cos theta_c.)
    The w_ck have unit length but are not orthogonalised, so that p_c is a projection onto their span only if they are
    orthogonal. An embedding orthogonal to all of them has cosine 0.

    The scale is initialised as sqrt(2) log(C - 1) and updated in training before each step:

        s <- log(mean over clips of (sum_{c: y_c = 0} exp(s cos theta_c) + sum_{c: y_c > 0} 1))
             / cos(min(pi / 4, median over clips of sum_c y_c theta_c))

    Targets may be soft labels (mixup). subspace: dimensions K per class. dynamic: adapt the scale, else it is constant.
    scale: initial value instead of that above. trainable: train the w_ck, else they stay as initialised. seed: of w_ck.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        subspace: int = 32,
        dynamic: bool = True,
        scale: float | None = None,
        trainable: bool = False,
        seed: int = 0,
    ) -> None:
        if subspace < 1:
            raise ValueError("subspace >= 1")
        centres = classes * subspace
        super().__init__(
            dim, classes, centres, logits=classes, dynamic=dynamic, scale=scale, trainable=trainable, seed=seed
        )
        self.subspace = subspace

    def _cosines(self, x_BD: Tensor) -> Tensor:
        """(B, C) cosines of unit vectors to their projections"""
        w_CKD = unit(precise(self.centres)).to(x_BD.dtype).view(self.classes, self.subspace, self.dim)
        a_BCK = torch.einsum("bd,ckd->bck", x_BD, w_CKD)
        # |p|^2 = a' W W' a: the projections (B, C, D) are never computed.
        wa_BCK = torch.einsum("bck,ckl->bcl", a_BCK, w_CKD @ w_CKD.transpose(1, 2))
        squares_BC = (a_BCK * wa_BCK).sum(dim=2)
        along_BC = (a_BCK * a_BCK).sum(dim=2)
        # A zero projection with rounding errors has no direction.
        projected = ~(squares_BC <= torch.finfo(x_BD.dtype).eps ** 2)
        return torch.where(projected, along_BC * torch.rsqrt(torch.where(projected, squares_BC, 1.0)), 0.0)

    def _loss(self, x_BD: Tensor, target: Tensor) -> Tensor:
        cosines_BC = self._cosines(x_BD)
        if self.dynamic and self.training:
            y_BC = shares(target, self.classes, cosines_BC)
            angle_B = (y_BC * angles(cosines_BC)).sum(dim=1)
            counting_BC = (self.scale * cosines_BC.detach()).masked_fill(y_BC > 0, 0.0)
            self.scale.copy_(next_scale(counting_BC, angle_B))
        return cross_entropy(self.scale.clone() * cosines_BC, target)

    def _logits(self, x_BD: Tensor) -> Tensor:
        return self.scale * self._cosines(x_BD)

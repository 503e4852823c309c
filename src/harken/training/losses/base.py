"""What the losses have in common: checks of their input, directions, cross-entropy, precision."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Vectors shorter than this have no direction.
_SHORTEST = 1e-12


class ClassLoss(nn.Module, ABC):
    """Loss of a classifier whose classes are directions in the space of embeddings.

    All work is done in single precision or better, also within autocast and for embeddings in half precision.

    dim: D, of the embeddings. classes: C.
    """

    #: whether targets may be (B, C), shares of each class as mixup makes them
    soft_targets = False

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        if dim < 1 or classes < 2:
            raise ValueError("dim >= 1 and classes >= 2")
        self.dim = dim
        self.classes = classes

    def forward(self, embedding_BD: Tensor, target: Tensor) -> Tensor:
        """Mean loss of the batch, a scalar.

        target: (B,) class indices, or for some losses (B, C) shares. Raises ValueError for other shapes, an empty
        batch and classes that do not exist (also for the index of unlabelled clips: leave them out).
        """
        self._check_embedding(embedding_BD)
        self._check_target(len(embedding_BD), target)
        with torch.autocast(embedding_BD.device.type, enabled=False):
            return self._loss(unit(precise(embedding_BD)), target)

    def logits(self, embedding_BD: Tensor) -> Tensor:
        """(B, D) -> (B, C) logits without margin: the class of the largest is the class predicted."""
        self._check_embedding(embedding_BD)
        with torch.autocast(embedding_BD.device.type, enabled=False):
            return self._logits(unit(precise(embedding_BD)))

    @abstractmethod
    def _loss(self, x_BD: Tensor, target: Tensor) -> Tensor:
        """Of embeddings of unit length."""

    @abstractmethod
    def _logits(self, x_BD: Tensor) -> Tensor:
        """Of embeddings of unit length."""

    def _check_embedding(self, embedding_BD: Tensor) -> None:
        if embedding_BD.ndim != 2 or embedding_BD.shape[1] != self.dim or len(embedding_BD) == 0:
            raise ValueError(f"expected embeddings (B, {self.dim}), got {tuple(embedding_BD.shape)}")

    def _check_target(self, batch: int, target: Tensor) -> None:
        if target.is_floating_point():
            if not self.soft_targets:
                raise ValueError("needs class indices; of mixed clips, mix the losses of either class")
            if target.shape != (batch, self.classes):
                raise ValueError(f"expected targets ({batch}, {self.classes}), got {tuple(target.shape)}")
        else:
            if target.shape != (batch,):
                raise ValueError(f"expected targets ({batch},), got {tuple(target.shape)}")
            if bool(((target < 0) | (target >= self.classes)).any()):
                raise ValueError(f"classes are 0 to {self.classes - 1}")


def precise(x: Tensor) -> Tensor:
    """In single precision at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor) -> Tensor:
    """Last axis to unit length; what has no direction becomes zero and has no gradient."""
    squares = (x * x).sum(dim=-1, keepdim=True)
    # Not `squares > ...`, which would turn what is not a number into zeros.
    directed = ~(squares <= _SHORTEST**2)
    return torch.where(directed, x * torch.rsqrt(torch.where(directed, squares, 1.0)), 0.0)


def centres_of(number: int, dim: int, seed: int, *, trainable: bool = True) -> nn.Parameter:
    """(number, dim) directions drawn evenly, the same for the same seed."""
    drawn = torch.randn(number, dim, generator=torch.Generator().manual_seed(seed))
    return nn.Parameter(unit(drawn), requires_grad=trainable)


def cosines(x_BD: Tensor, centres_MD: Tensor) -> Tensor:
    """(B, M) cosines of unit vectors to centres of any length."""
    return x_BD @ unit(precise(centres_MD)).to(x_BD.dtype).T


def shares(target: Tensor, classes: int, like: Tensor) -> Tensor:
    """Targets as (B, C) shares."""
    if target.is_floating_point():
        return target.to(like)
    return F.one_hot(target.long(), classes).to(like)


def cross_entropy(logits_BC: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch; targets are indices or shares."""
    return F.cross_entropy(logits_BC, target.to(logits_BC) if target.is_floating_point() else target.long())

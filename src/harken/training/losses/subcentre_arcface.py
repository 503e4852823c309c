"""Sub-centre ArcFace: several centres for some classes, of which the nearest is used."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from harken.training.losses.arcface import MarginLoss, margin_cross_entropy
from harken.training.losses.base import centres_of, cosines, precise, unit


def free_classes(chosen: Iterable[int] | None, classes: int) -> list[int]:
    """The attribute-free classes in order; None is all. Raises ValueError for one that does not exist."""
    indices = sorted({int(index) for index in (range(classes) if chosen is None else chosen)})
    if indices and not 0 <= indices[0] <= indices[-1] < classes:
        raise ValueError(f"attribute-free classes are 0 to {classes - 1}")
    return indices


class SubcentreArcFace(MarginLoss):
    """ArcFace (see there) with theta_j the angle to the nearest of the centres of class j (Deng et al., ECCV 2020,
    sec. 3.2), several only for classes without attributes (SJTU-AITHU, sec. 2.4, eq. 1).

    attribute_free: indices of these classes, None for all. subcentres: K per class. scale, margin: s and m.
    seed: of the centres. The centres are in the order of the classes.
    """

    first_centre: Tensor
    _table: Tensor
    _is_centre: Tensor

    def __init__(
        self,
        dim: int,
        classes: int,
        attribute_free: Iterable[int] | None = None,
        subcentres: int = 16,
        scale: float = 30.0,
        margin: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, classes, scale, margin)
        if subcentres < 1:
            raise ValueError("subcentres >= 1")
        number_C = torch.ones(classes, dtype=torch.int64)
        number_C[free_classes(attribute_free, classes)] = subcentres
        first_C = number_C.cumsum(0) - number_C
        within_K = torch.arange(int(number_C.max()))
        self.register_buffer("first_centre", first_C, persistent=False)
        self.register_buffer("_is_centre", within_K < number_C[:, None], persistent=False)
        self.register_buffer("_table", torch.where(self._is_centre, first_C[:, None] + within_K, 0), persistent=False)
        self.centres = centres_of(int(number_C.sum()), dim, seed)

    def nearest(self, embedding_BD: Tensor) -> Tensor:
        """(B, C) index within each class of its centre nearest to each embedding."""
        self._check_embedding(embedding_BD)
        with torch.no_grad(), torch.autocast(embedding_BD.device.type, enabled=False):
            return self._nearest(cosines(unit(precise(embedding_BD)), self.centres)) - self.first_centre

    def _nearest(self, cosines_BM: Tensor) -> Tensor:
        """(B, C) rows of the nearest centres"""
        cosines_BCK = cosines_BM[:, self._table].masked_fill(~self._is_centre, -torch.inf)
        return self.first_centre + cosines_BCK.argmax(dim=2)

    def _class_cosines(self, x_BD: Tensor) -> Tensor:
        cosines_BM = cosines(x_BD, self.centres)
        # Chosen without gradient, then picked: classes of one centre cost nothing but their place in the table.
        return cosines_BM.gather(1, self._nearest(cosines_BM.detach()))

    def _logits(self, x_BD: Tensor) -> Tensor:
        return self.scale * self._class_cosines(x_BD)

    def _loss(self, x_BD: Tensor, target: Tensor) -> Tensor:
        return margin_cross_entropy(self._class_cosines(x_BD), target, self.scale, self.margin)

"""Adaptive prototypes: classes without attributes learn their conditions as prototypes of embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from harken.training.losses.arcface import MarginLoss, margin_cross_entropy
from harken.training.losses.base import centres_of, cosines, precise, unit
from harken.training.losses.subcentre_arcface import free_classes


@dataclass(frozen=True)
class PrototypeUse:
    """Usage of the K prototypes of an attribute-free class since the last reset.

    counts: clips per prototype. dead: prototypes without clips. perplexity: exp of the entropy of the counts, 1 if one
    prototype has all clips, K for equal counts (0 before the first clip). similarity: mean cosine between the
    prototypes; near 1 they have collapsed.
    """

    counts: tuple[int, ...]
    dead: int
    perplexity: float
    similarity: float


class AdaptivePrototype(MarginLoss):
    """Adaptive prototype learning (THUEE, sec. 2.2: "the network embedding is mapped to the nearest sub-center and the
    corresponding sub-center rather than the original embedding is utilized for loss computation").

        p = the prototype of class y nearest to x;    z = p + x - sg(x);    sg: no gradient
        L = ArcFace(z, y) + |sg(x) - p|^2 + beta |x - sg(p)|^2,    all of unit length

    The report does not specify the gradient of the mapping, which has none. Here as in VQ-VAE (van den Oord et al.,
    NeurIPS 2017, eq. 2 and 3): the embedding receives the gradient of its prototype (straight-through) and is kept
    close to it by the commitment term. Unlike there, the prototype receives that gradient as well. Clips of other
    classes are classified by their embedding; without attribute-free classes, this is ArcFace.

    attribute_free: indices of the classes with prototypes, None for all. prototypes: K per class. commitment: beta.
    scale, margin: of ArcFace with one centre per class. seed: of centres and prototypes.
    """

    uses: Tensor
    _row: Tensor

    def __init__(
        self,
        dim: int,
        classes: int,
        attribute_free: Iterable[int] | None = None,
        prototypes: int = 16,
        commitment: float = 0.25,
        scale: float = 30.0,
        margin: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, classes, scale, margin)
        if prototypes < 1 or not commitment >= 0:
            raise ValueError("prototypes >= 1 and commitment >= 0")
        self.attribute_free = free_classes(attribute_free, classes)
        self.per_class = prototypes
        self.commitment = commitment
        # Drawn together, so that no prototype is initialised as a centre.
        drawn = centres_of(classes + len(self.attribute_free) * prototypes, dim, seed).detach()
        self.centres = torch.nn.Parameter(drawn[:classes].clone())
        #: (classes with prototypes * K, D), class by class
        self.prototypes = torch.nn.Parameter(drawn[classes:].clone())
        row_C = torch.full((classes,), -1)
        row_C[self.attribute_free] = torch.arange(len(self.attribute_free))
        self.register_buffer("_row", row_C, persistent=False)
        # Saved with the weights, so that resumed training continues counting.
        self.register_buffer("uses", torch.zeros(len(self.attribute_free), prototypes, dtype=torch.int64))

    def nearest(self, embedding_BD: Tensor, target_B: Tensor) -> Tensor:
        """(B,) index within its class of the prototype of each embedding; -1 for classes without prototypes."""
        self._check_embedding(embedding_BD)
        self._check_target(len(embedding_BD), target_B)
        with torch.autocast(embedding_BD.device.type, enabled=False):
            return self._nearest(unit(precise(embedding_BD)), target_B)

    @torch.no_grad()
    def _nearest(self, x_BD: Tensor, target_B: Tensor) -> Tensor:
        row_B = self._row[target_B.long()]
        nearest_B = torch.full_like(row_B, -1)
        free_B = row_B >= 0
        if len(self.attribute_free):
            rows_BK = row_B[free_B][:, None] * self.per_class + torch.arange(self.per_class, device=row_B.device)
            cosines_BM = cosines(x_BD[free_B], self.prototypes)
            nearest_B[free_B] = cosines_BM.gather(1, rows_BK).argmax(dim=1)
        return nearest_B

    def _loss(self, x_BD: Tensor, target: Tensor) -> Tensor:
        nearest_B = self._nearest(x_BD, target)
        free_B = nearest_B >= 0
        row_B = self._row[target.long()]
        if self.training and len(self.attribute_free):
            used = row_B[free_B] * self.per_class + nearest_B[free_B]
            self.uses += torch.bincount(used, minlength=self.uses.numel()).view_as(self.uses)
        if not len(self.attribute_free):
            return margin_cross_entropy(cosines(x_BD, self.centres), target, self.scale, self.margin)
        prototypes_MD = unit(precise(self.prototypes)).to(x_BD.dtype)
        chosen_B = (row_B * self.per_class + nearest_B).clamp(min=0)
        p_BD = torch.where(free_B[:, None], prototypes_MD[chosen_B], x_BD.detach())
        # The length of z is that of p, but its gradient is not: a direction has none along itself.
        z_BD = unit(p_BD + (x_BD - x_BD.detach()))
        classified = margin_cross_entropy(cosines(z_BD, self.centres), target, self.scale, self.margin)
        # Mean over the batch: the weight of a clip does not depend on the others.
        codebook = (x_BD.detach() - p_BD).square().sum(dim=1).mean()
        committed = torch.where(free_B[:, None], x_BD - p_BD.detach(), 0.0).square().sum(dim=1).mean()
        return classified + codebook + self.commitment * committed

    def _logits(self, x_BD: Tensor) -> Tensor:
        return self.scale * cosines(x_BD, self.centres)

    @torch.no_grad()
    def monitor(self) -> dict[int, PrototypeUse]:
        """{class index: usage of its prototypes}."""
        usage = {}
        for row, index in enumerate(self.attribute_free):
            counts = self.uses[row].tolist()
            shares_K = self.uses[row].double() / max(sum(counts), 1)
            entropy = float(torch.special.entr(shares_K).sum())
            p_KD = unit(self.prototypes[row * self.per_class : (row + 1) * self.per_class].double())
            pairs = self.per_class * (self.per_class - 1)
            similarity = float(((p_KD @ p_KD.T).sum() - p_KD.square().sum()) / pairs) if pairs else 1.0
            usage[index] = PrototypeUse(
                counts=tuple(counts),
                dead=counts.count(0),
                perplexity=float(torch.tensor(entropy).exp()) if any(counts) else 0.0,
                similarity=similarity,
            )
        return usage

    def reset_uses(self) -> None:
        """Reset the counts."""
        self.uses.zero_()

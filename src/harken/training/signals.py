"""What a training may be judged by without an anomaly: held-out clips of the classes that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harken.training.settings import held_out_clips

Ints = NDArray[np.int64]

#: mean cosine between clips of different classes from which on all clips are the same to a network
SAME = 0.9999


@dataclass(frozen=True)
class Signals:
    """loss: mean over held-out clips. accuracy: share of them whose class is found. chance: accuracy of always saying
    the most frequent class. similarity: mean cosine between held-out clips of different classes (1: collapsed; nan
    where there is one class). rank: exp of the entropy of the embedding's spectrum, of 1 to D directions in use
    (Roy and Vetterli, EUSIPCO 2007).
    """

    loss: float
    accuracy: float
    chance: float
    similarity: float
    rank: float

    @property
    def collapsed(self) -> bool:
        """Whether embeddings of different classes are nearly equal."""
        return self.similarity > SAME


def hold_out(class_N: Ints, share: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Rows to train on and rows held out: `share` of each class of at least `FEWEST` clips, one at least.

    Clips without class (-1) are trained on.
    """
    held: list[int] = []
    for label in np.unique(class_N[class_N >= 0]):
        rows = np.flatnonzero(class_N == label)
        count = held_out_clips(len(rows), share)
        if count:
            held += rng.permutation(rows)[:count].tolist()
    held_N = np.array(sorted(held), dtype=np.int64)
    return np.setdiff1d(np.arange(len(class_N)), held_N), held_N


def signals_of(losses: Sequence[float], logits_NC: Tensor, embedding_ND: Tensor, class_N: Ints) -> Signals:
    """losses: one per clip, or one per batch of equal size. class_N: of the clips, all with a class."""
    predicted_N = logits_NC.argmax(dim=1).cpu().numpy()
    counts = np.unique(class_N, return_counts=True)[1]
    return Signals(
        loss=float(np.mean(losses)),
        accuracy=float(np.mean(predicted_N == class_N)),
        chance=float(counts.max() / counts.sum()),
        similarity=_similarity(embedding_ND.double().cpu(), class_N),
        rank=_effective_rank(embedding_ND.double().cpu()),
    )


def _similarity(embedding_ND: Tensor, class_N: Ints) -> float:
    """Mean cosine over pairs of different classes, from sums over classes."""
    x_ND = torch.nn.functional.normalize(embedding_ND, dim=1)
    labels, inverse_N = np.unique(class_N, return_inverse=True)
    if len(labels) < 2:
        return float("nan")
    sums_CD = torch.zeros(len(labels), x_ND.shape[1], dtype=x_ND.dtype).index_add_(0, torch.from_numpy(inverse_N), x_ND)
    counts_C = torch.from_numpy(np.bincount(inverse_N)).to(x_ND.dtype)
    products = sums_CD.sum(0).square().sum() - sums_CD.square().sum()
    pairs = counts_C.sum().square() - counts_C.square().sum()
    return float(products / pairs)


def _effective_rank(embedding_ND: Tensor) -> float:
    values = torch.linalg.svdvals(embedding_ND - embedding_ND.mean(dim=0))
    total = values.sum()
    if len(values) == 0 or not total > 0:
        return 1.0
    return float(torch.special.entr(values / total).sum().exp())

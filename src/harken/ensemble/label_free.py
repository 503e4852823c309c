"""Weights without labels: from the agreement of members on clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harken.data.truth import Section
from harken.evaluation.scores import Scores

Float64 = NDArray[np.float64]

#: fewest training clips scored by all members on which these are compared
_FEWEST = 3


def compared(members: Sequence[Scores], keys: Sequence[Section]) -> tuple[Float64, bool]:
    """(M, M) correlation of members on the training clips of which all have held-out scores, else on the test clips,
    and whether the test clips were used."""
    training = [_training_clips(members, key) for key in keys]
    held_out = [scores_MN for scores_MN in training if scores_MN is not None]
    if len(held_out) == len(keys):
        return correlation(held_out), False
    return correlation([np.stack([member.of_section(key).score_N for member in members]) for key in keys]), True


def _training_clips(members: Sequence[Scores], key: Section) -> Float64 | None:
    rows = []
    for member in members:
        train = member.held_out(key)
        rows.append(dict(zip(zip(train.section, train.names, strict=True), train.score_N.tolist(), strict=True)))
    names = sorted(name for name in rows[0] if all(name in row for row in rows))
    if len(names) < _FEWEST:
        return None
    return np.array([[row[name] for name in names] for row in rows])


def correlation(sections: Sequence[Float64], *, ranks: bool = False) -> Float64:
    """(M, M) mean over sections of the correlations between members; sections: (members, clips) of each.

    ranks: Spearman's instead of Pearson's. A member with one score for all clips of a section has correlation 0.
    """
    from scipy.stats import rankdata

    correlations = []
    for scores_MN in sections:
        values_MN = rankdata(scores_MN, axis=1) if ranks else scores_MN
        centred_MN = values_MN - values_MN.mean(axis=1, keepdims=True)
        norm_M = np.linalg.norm(centred_MN, axis=1, keepdims=True)
        unit_MN = np.divide(centred_MN, norm_M, out=np.zeros_like(centred_MN), where=norm_M > 0)
        correlations.append(unit_MN @ unit_MN.T)
    return np.asarray(np.mean(correlations, axis=0))


def agreement(correlation_MM: Float64) -> Float64:
    """(M,) in proportion to the first eigenvector: members that agree with the others get more weight.

    Parisi et al. (2014): where members err independently, it orders them by their accuracy. Members that contradict
    the majority get none.
    """
    vector_M = np.linalg.eigh(correlation_MM)[1][:, -1]
    vector_M = np.maximum(vector_M * np.sign(vector_M.sum() or 1.0), 0.0)
    return np.asarray(vector_M / vector_M.sum())


def least_variance(correlation_MM: Float64) -> Float64:
    """(M,) weights of least variance (Markowitz 1952): members that repeat each other share one weight.

    Minimises w' C w over w >= 0 with sum 1, as a non-negative least-squares problem.
    """
    from scipy.optimize import nnls

    count = len(correlation_MM)
    # A little on the diagonal: near duplicates share their weight evenly instead of by rounding errors.
    values_M, vectors_MM = np.linalg.eigh(correlation_MM + 1e-6 * np.eye(count))
    root_MM = (vectors_MM * np.sqrt(np.maximum(values_M, 0.0))).T
    # A row that asks for sum 1, and scaling afterwards, give the solution of the constrained problem.
    weights_M, _ = nnls(np.vstack([root_MM, np.full((1, count), 1.0)]), np.append(np.zeros(count), 1.0))
    return np.asarray(weights_M / weights_M.sum())

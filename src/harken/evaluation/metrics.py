"""The official DCASE Task 2 metric of 2022-2026."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class SectionResult:
    """auc_source, auc_target: each domain's normals against the anomalies of both; pauc: all clips, FPR <= 0.1."""

    auc_source: float
    auc_target: float
    pauc: float


def section_result(anomaly_N: ArrayLike, target_N: ArrayLike, scores_N: ArrayLike) -> SectionResult:
    """Official numbers of one section.

    anomaly_N, target_N: truth values; scores_N: higher = more anomalous. pAUC is standardised after McClish (1989),
    so that chance is 0.5. Raises ValueError when a score is not finite or a class is missing.
    """
    from sklearn.metrics import roc_auc_score

    anomaly = np.asarray(anomaly_N, dtype=bool)
    target = np.asarray(target_N, dtype=bool)
    scores = np.asarray(scores_N, dtype=np.float64)
    if not (anomaly.shape == target.shape == scores.shape):
        raise ValueError("labels, domains and scores are of different lengths")
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    if not anomaly.any() or not (~anomaly & target).any() or not (~anomaly & ~target).any():
        raise ValueError("a section needs anomalies and normal clips of both domains")
    in_source, in_target = ~target | anomaly, target | anomaly
    return SectionResult(
        float(roc_auc_score(anomaly[in_source], scores[in_source])),
        float(roc_auc_score(anomaly[in_target], scores[in_target])),
        float(roc_auc_score(anomaly, scores, max_fpr=0.1)),
    )


def official_score(results: list[SectionResult]) -> float:
    """Harmonic mean over the three numbers of every section of every machine, each at least 2.2e-16."""
    from scipy.stats import hmean

    # The evaluators' order: the last digit of a sum depends on it.
    numbers = [
        *(result.auc_source for result in results),
        *(result.auc_target for result in results),
        *(result.pauc for result in results),
    ]
    return float(hmean(np.maximum(numbers, np.finfo(float).eps)))

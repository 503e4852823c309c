"""The view of details, short events and steady tones, beside the stationary one, and both p-values in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.core.threads import one_thread
from harken.detection import DEFAULT_DETECTOR, AnomalyDetector, create_detector
from harken.detection.calibration import Calibration
from harken.detection.outliers import counted, outliers

Float64 = NDArray[np.float64]

#: share of the false alarms that details may cause. Measured on four simulated machines, 0.2 costs the
#: stationary view at most one fault of eighty at a rate of 1 % and two at 5 %; 0.5 up to three and six
EVENT_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class EventView:
    """A detector of what the embedding hides (`ClipFeatures.details_D`) with the calibration of its held-out scores.

    Its score is that of short events, found in short-time levels as sound is in embeddings; or, where that is rarer,
    that of a steady tone, by how far a band stands above any normal clip (`detection.beyond`). What is rare is measured
    against all normal clips: strokes and clicks that are part of the machine's normal sound are in the levels of every
    normal clip. scores_N: of the normal clips, held-out but for those that it does not learn from, since a door was
    slammed in them (`detection.outliers`). counted_N: those of the calibration.
    """

    detector: AnomalyDetector
    calibration: Calibration
    scores_N: Float64
    counted_N: NDArray[np.bool_]

    @classmethod
    def fit(
        cls,
        details_ND: ArrayLike,
        domains_N: ArrayLike | None = None,
        blocks_N: ArrayLike | None = None,
        *,
        sequences_N: ArrayLike | None = None,
        states_N: ArrayLike | None = None,
        ordered: bool = True,
        keep_outliers: bool = False,
        picked_N: NDArray[np.bool_] | None = None,
        steady: int = 0,
    ) -> Self:
        """Fit to details of normal clips; see `AnomalyDetector.fit` and `Calibration.fit`.

        steady: the last so many columns are steady levels; in models of earlier versions there are none.
        ordered: whether the clips are in the order of time. keep_outliers: learn from all.
        picked_N: clips that were chosen for their scores: they are learned from, and may not count, see `counted`.
        """
        rows_ND = np.asarray(details_ND)
        domains, blocks, sequences, states = (
            None if labels is None else np.asarray(labels) for labels in (domains_N, blocks_N, sequences_N, states_N)
        )
        with one_thread():
            detector = unfitted(steady).fit(rows_ND, domains, blocks)
            scores_N = detector.train_scores_
            trusted_N = np.ones(len(rows_ND), dtype=bool) if picked_N is None else ~picked_N
            kept_N = np.ones(len(rows_ND), dtype=bool)
            if not keep_outliers:
                kept_N[trusted_N] = ~outliers(scores_N[trusted_N])
            if not kept_N.all():
                domains, blocks, sequences, states = (
                    None if labels is None else labels[kept_N] for labels in (domains, blocks, sequences, states)
                )
                detector = unfitted(steady).fit(rows_ND[kept_N], domains, blocks)
                scores_N = np.empty(len(rows_ND))
                scores_N[kept_N] = detector.train_scores_
                scores_N[~kept_N] = detector.score(rows_ND[~kept_N])
        labels_N = np.zeros(len(rows_ND)) if domains_N is None else np.asarray(domains_N)
        counted_N = counted(scores_N, ~trusted_N, labels_N, kept_N)
        if not ordered:
            return cls(detector, Calibration.independent(scores_N[counted_N]), scores_N, counted_N)
        of_kept = counted_N[kept_N]
        sequences, states = (None if labels is None else labels[of_kept] for labels in (sequences, states))
        return cls(detector, Calibration.fit(scores_N[counted_N], sequences, states), scores_N, counted_N)

    def score(self, details_ND: ArrayLike) -> Float64:
        """(N, D) details -> (N,) scores, higher = more anomalous. Models of earlier versions know the first ones."""
        with one_thread():
            return self.detector.score(np.asarray(details_ND)[:, : self.detector.dimensions])


def unfitted(steady: int) -> AnomalyDetector:
    """Of details whose last columns are so many steady levels."""
    if not steady:
        return create_detector(DEFAULT_DETECTOR)
    events, tones = {"start": 0, "stop": -steady, "unit": None}, {"start": -steady, "stop": None, "unit": None}
    members = [
        {"detector": name, "parameters": {}, "columns": [columns], "weight": 1.0}
        for name, columns in ((DEFAULT_DETECTOR, events), ("beyond", tones))
    ]
    return create_detector("composite", {"members": members, "mixing": "rarest"})


def joined_p(stationary_p_N: ArrayLike, event_p_N: ArrayLike, event_share: float = EVENT_SHARE) -> Float64:
    """(N,) one p-value for the p-values of both views: weighted Bonferroni,

        p = min(1, p_stationary / (1 - w), p_event / w),    w = event_share.

    Whatever the dependence of the views, P(p <= a) <= a where both p-values are valid (Genovese, Roeder and Wasserman
    2006, False discovery control with p-value weighting).
    """
    stationary_p_N = np.asarray(stationary_p_N, dtype=np.float64) / (1.0 - event_share)
    return np.minimum(1.0, np.minimum(stationary_p_N, np.asarray(event_p_N, dtype=np.float64) / event_share))

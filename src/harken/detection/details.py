"""The views of details, short events and steady tones, beside that of the whole sound; all p-values in one."""

from __future__ import annotations

from collections.abc import Sequence
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
#: view of the sound as a whole at most one fault of eighty at a rate of 1 % and two at 5 %; 0.5 up to three and six
DETAIL_SHARE, MOST_DETAIL_SHARE = 0.2, 0.5


def event_detector() -> AnomalyDetector:
    """Finds short events in short-time levels (`embeddings.short_time`), as the default one does in embeddings."""
    return create_detector(DEFAULT_DETECTOR)


def tone_detector() -> AnomalyDetector:
    """Finds tones in steady levels (`embeddings.steady`): by how far a band stands above any normal clip."""
    return create_detector("beyond")


@dataclass(frozen=True, eq=False)
class DetailView:
    """A detector of what the embedding hides, with the calibration of its held-out scores.

    What is rare is measured against all normal clips: strokes, clicks and tones that are part of the machine's normal
    sound are in the levels of every normal clip. scores_N: of the normal clips, held-out but for those that it does not
    learn from, since a door was slammed in them (`detection.outliers`). counted_N: those of the calibration.
    """

    detector: AnomalyDetector
    calibration: Calibration
    scores_N: Float64
    counted_N: NDArray[np.bool_]

    @classmethod
    def fit(
        cls,
        unfitted: AnomalyDetector,
        levels_ND: ArrayLike,
        domains_N: ArrayLike | None = None,
        blocks_N: ArrayLike | None = None,
        *,
        sequences_N: ArrayLike | None = None,
        states_N: ArrayLike | None = None,
        ordered: bool = True,
        keep_outliers: bool = False,
        picked_N: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Fit the detector to levels of normal clips; see `AnomalyDetector.fit` and `Calibration.fit`.

        ordered: whether the clips are in the order of time. keep_outliers: learn from all.
        picked_N: clips that were chosen for their scores: they are learned from, and may not count, see `counted`.
        """
        rows_ND = np.asarray(levels_ND)
        domains, blocks, sequences, states = (
            None if labels is None else np.asarray(labels) for labels in (domains_N, blocks_N, sequences_N, states_N)
        )
        with one_thread():
            detector = unfitted.fit(rows_ND, domains, blocks)
            scores_N = detector.train_scores_
            trusted_N = np.ones(len(rows_ND), dtype=bool) if picked_N is None else ~picked_N
            kept_N = np.ones(len(rows_ND), dtype=bool)
            if not keep_outliers:
                kept_N[trusted_N] = ~outliers(scores_N[trusted_N])
            if not kept_N.all():
                domains, blocks, sequences, states = (
                    None if labels is None else labels[kept_N] for labels in (domains, blocks, sequences, states)
                )
                detector = unfitted.fit(rows_ND[kept_N], domains, blocks)
                scores_N = np.empty(len(rows_ND))
                scores_N[kept_N] = detector.train_scores_
                scores_N[~kept_N] = detector.score(rows_ND[~kept_N])
        labels_N = np.zeros(len(rows_ND)) if domains_N is None else np.asarray(domains_N)
        counted_N = counted(scores_N, ~trusted_N, labels_N, kept_N)
        of_counted_N, form = scores_N[counted_N], detector.tail_form
        if not ordered:
            return cls(detector, Calibration.independent(of_counted_N, form), scores_N, counted_N)
        of_kept = counted_N[kept_N]
        sequences, states = (None if labels is None else labels[of_kept] for labels in (sequences, states))
        return cls(detector, Calibration.fit(of_counted_N, sequences, states, form), scores_N, counted_N)

    def score(self, levels_ND: ArrayLike) -> Float64:
        """(N, D) levels -> (N,) scores, higher = more anomalous."""
        with one_thread():
            return self.detector.score(levels_ND)


def joined_p(p_values: Sequence[ArrayLike], shares: Sequence[float]) -> Float64:
    """(N,) one p-value for (N,) p-values of several views: weighted Bonferroni,

        p = min(1, min_v p_v / w_v),    sum_v w_v = 1,    w = shares.

    Whatever the dependence of the views, P(p <= a) <= a where all p-values are valid (Genovese, Roeder and Wasserman
    2006, False discovery control with p-value weighting).
    """
    weighted = [
        np.asarray(p_N, dtype=np.float64) / share for p_N, share in zip(p_values, shares, strict=True) if share > 0
    ]
    return np.asarray(np.minimum(1.0, np.min(weighted, axis=0)))


def detail_shares(finest: tuple[float, float, float] | None) -> tuple[float, float, float]:
    """Shares of the false alarms that the views of the sound as a whole, of events and of tones have.

    finest: rates with power of the three (`Calibration.finest_with_power`): shares are in their proportion, so that
    every threshold is one that is reached, but events and tones have half of `DETAIL_SHARE` at least, and are scaled
    down where both would have more than `MOST_DETAIL_SHARE`. None: for a rate that was asked for, of which details have
    the least.
    """
    least = DETAIL_SHARE / 2
    if finest is None:
        return 1.0 - DETAIL_SHARE, least, least
    events, tones = (max(rate / sum(finest), least) for rate in finest[1:])
    scale = min(1.0, MOST_DETAIL_SHARE / (events + tones))
    return 1.0 - scale * (events + tones), scale * events, scale * tones

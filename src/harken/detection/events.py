"""The view of short events beside the stationary one, and both p-values in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.core.threads import one_thread
from harken.detection import DEFAULT_DETECTOR, AnomalyDetector, create_detector
from harken.detection.calibration import Calibration

Float64 = NDArray[np.float64]

#: share of the false alarms that short events may cause. Measured on four simulated machines, 0.2 costs the
#: stationary view at most one fault of a hundred, and 0.5 up to seven
EVENT_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class EventView:
    """A detector of short-time levels (`embeddings.short_time`) with the calibration of its held-out scores.

    What is rare is measured against all normal clips: strokes and clicks that are part of the machine's normal sound
    are in the levels of every normal clip.
    """

    detector: AnomalyDetector
    calibration: Calibration

    @classmethod
    def fit(
        cls,
        levels_ND: ArrayLike,
        domains_N: ArrayLike | None = None,
        blocks_N: ArrayLike | None = None,
        *,
        sequences_N: ArrayLike | None = None,
        states_N: ArrayLike | None = None,
    ) -> Self:
        """Fit to the short-time levels of normal clips; see `AnomalyDetector.fit` and `Calibration.fit`."""
        with one_thread():
            detector = create_detector(DEFAULT_DETECTOR)
            detector.fit(levels_ND, domains_N, blocks_N)
        return cls(detector, Calibration.fit(detector.train_scores_, sequences_N, states_N))

    def score(self, levels_ND: ArrayLike) -> Float64:
        """(N, D) short-time levels -> (N,) scores of short events, higher = more anomalous."""
        with one_thread():
            return self.detector.score(levels_ND)


def joined_p(stationary_p_N: ArrayLike, event_p_N: ArrayLike) -> Float64:
    """(N,) one p-value for the p-values of both views: weighted Bonferroni,

        p = min(1, p_stationary / (1 - w), p_event / w),    w = `EVENT_SHARE`.

    Whatever the dependence of the views, P(p <= a) <= a where both p-values are valid (Genovese, Roeder and Wasserman
    2006, False discovery control with p-value weighting).
    """
    stationary_p_N = np.asarray(stationary_p_N, dtype=np.float64) / (1.0 - EVENT_SHARE)
    return np.minimum(1.0, np.minimum(stationary_p_N, np.asarray(event_p_N, dtype=np.float64) / EVENT_SHARE))

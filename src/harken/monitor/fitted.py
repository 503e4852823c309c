"""What was learned of a machine's normal sound: all that a detector is made of, and that a bundle keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.detection import AnomalyDetector
from harken.detection.calibration import Calibration
from harken.detection.details import DetailView
from harken.embeddings.embedder import EmbeddingSpec
from harken.monitor.basis import Basis, KnownFaults
from harken.monitor.length import LengthEffect
from harken.monitor.normal_set import Excluded, Training
from harken.monitor.off import OffRecordings
from harken.monitor.versions import FIRST, Version
from harken.monitor.view_scores import ViewScores


@dataclass(frozen=True, eq=False)
class Fitted:
    """All that is learned.

    spec, weights: of embeddings. detector, calibration: fitted on those of the normal recordings. training: what is
    kept of these. false_alarms, every: the rate that the alarm is set for, and the time from the beginning of one
    recording to that of the next, see `monitor.alarm`. block: consecutive recordings that may be correlated. events,
    tones: the views of short events and of tones; length: how scores depend on it. None in models of earlier versions
    and of runs, and `length` where it cannot be measured. off: recordings of the machine switched off, where there are
    any. basis: what learning again needs; None in models of earlier versions of Harken and of runs. counted_N: whether
    the score of each normal recording counts for the threshold; None where all do. faults: known ones. version: see
    `monitor.versions`. notes: what the maker should know of the recordings. set_aside: those not learned from. paths:
    of those learned from, in the order of `training`. Neither is kept in a bundle.
    """

    spec: EmbeddingSpec
    weights: Mapping[str, np.ndarray] | None
    detector: AnomalyDetector
    calibration: Calibration
    training: Training
    false_alarms: str
    every: str | None = None
    block: int = 1
    events: DetailView | None = None
    tones: DetailView | None = None
    length: LengthEffect | None = None
    off: OffRecordings | None = None
    basis: Basis | None = None
    counted_N: NDArray[np.bool_] | None = None
    faults: KnownFaults | None = None
    version: Version = FIRST
    notes: tuple[str, ...] = ()
    set_aside: tuple[Excluded, ...] = ()
    paths: tuple[Path, ...] = ()

    def held_out(self, row: int) -> ViewScores:
        """Scores of a normal recording that was learned from, by what was learned from the others."""
        events, tones = (None if view is None else float(view.scores_N[row]) for view in (self.events, self.tones))
        return ViewScores(float(self.training.scores_N[row]), events, tones)

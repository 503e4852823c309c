"""What was learned of a machine's normal sound: all that a detector is made of, and that a bundle keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harken.detection import AnomalyDetector
from harken.detection.calibration import Calibration
from harken.embeddings.embedder import EmbeddingSpec
from harken.monitor.normal_set import Excluded, Training


@dataclass(frozen=True, eq=False)
class Fitted:
    """spec, weights: of embeddings. detector, calibration: fitted on those of the normal recordings. training: what is
    kept of them. notes: what the maker should know of them. set_aside: recordings that were not learned from; not kept
    in a bundle. block: consecutive clips that are correlated, for `EDetector`."""

    spec: EmbeddingSpec
    weights: Mapping[str, np.ndarray] | None
    detector: AnomalyDetector
    calibration: Calibration
    training: Training
    notes: tuple[str, ...] = ()
    set_aside: tuple[Excluded, ...] = ()
    block: int = 1

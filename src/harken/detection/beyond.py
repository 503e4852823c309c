"""How far the boldest dimension is above anything that a normal clip has there: for levels of bands."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt
from scipy.ndimage import maximum_filter1d

from harken.core.arrays import Stored
from harken.detection.base import AnomalyDetector, Float64
from harken.detection.tail import TailForm
from harken.embeddings.sketch import STEP_DB


class Beyond(AnomalyDetector):
    """score(x) = max_d x_d - max_n x_nd', d' within `neighbours` of d, over normal clips n; in the unit of x.

    A distance over all dimensions hides what one band alone does, the more the fewer normal clips there are: a tone is
    one or two bands of 384 dimensions. Neighbouring bands count as the same: speeds vary, and tones with them. Levels
    are those of `embeddings.steady`, in steps.
    """

    name: ClassVar[str] = "beyond"
    #: 0.2 is the least of 0.05, 0.2, 0.3 and 0.4 with which tones keep the rate of false alarms on six machines, and
    #: then on six others (docs/alarms.md); a median of an even number of levels lies between two steps
    tail_form: ClassVar[TailForm] = TailForm(shape=0.2, winsorised=True, step=STEP_DB / 2)

    highest_: Annotated[Float64, Stored("D")]

    def __init__(self, neighbours: NonNegativeInt = 1) -> None:
        self.neighbours = neighbours

    def _fit(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        self.mean_ = bank_ND.mean(axis=0)
        self.highest_ = maximum_filter1d(bank_ND.max(axis=0), 2 * self.neighbours + 1, mode="nearest")

    def _score(self, queries_ND: Float64) -> Float64:
        return np.asarray((queries_ND - self.highest_).max(axis=1))

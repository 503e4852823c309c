"""Base class of detectors that compare clips in a learned space."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.core.arrays import Stored, orthonormal
from harken.detection.base import AnomalyDetector, Float64
from harken.detection.space import Space, SpaceName, fit_space, standardisation


class InSpace(AnomalyDetector):
    """Base class of detectors with a parameter `space` (see `fit_space`); the fitted space is part of their state."""

    scale_: Annotated[Float64, Stored("D", over=0)]
    basis_: Annotated[Float64, Stored("D R", empty=True, rule=orthonormal)]
    gain_: Annotated[Float64, Stored("R", over=0, empty=True)]
    #: gain of all other directions
    rest_: Annotated[float, Stored("", over=0)]

    space: SpaceName

    def _fit_space(self, bank_ND: Float64, domains_N: NDArray[np.str_]) -> None:
        space = fit_space(bank_ND, domains_N, self.space)
        self.mean_, self.scale_ = space.mean_D, space.scale_D
        self.basis_, self.gain_, self.rest_ = space.basis_DR, space.gain_R, space.other_gain
        self._rebuild()

    def mapped(self, embeddings_ND: ArrayLike) -> Float64:
        """(clips, D) embeddings in the space in which distances are measured."""
        return self._space.apply(np.asarray(embeddings_ND, dtype=np.float64))

    def _rebuild(self) -> None:
        self._space = Space(self.mean_, self.scale_, self.basis_, self.gain_, float(self.rest_))


def in_space_of(detector: AnomalyDetector, normal_ND: NDArray[np.floating], rows_MD: NDArray[np.floating]) -> Float64:
    """(M, D) embeddings in the space of a detector; standardised by the normal ones where it has none."""
    if isinstance(detector, InSpace):
        return detector.mapped(rows_MD)
    mean_D, scale_D = standardisation(normal_ND.astype(np.float64))
    return np.asarray((rows_MD - mean_D) / scale_D)

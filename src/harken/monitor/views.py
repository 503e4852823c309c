"""All views of normal recordings fitted and calibrated: the sound as a whole, short events in it, and tones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.data.chronology import Chronology
from harken.detection import AnomalyDetector
from harken.detection.blocks import block_numbers, find_blocks
from harken.detection.calibration import Calibration
from harken.detection.details import DetailView, event_detector, tone_detector
from harken.detection.independent import independent_recordings
from harken.detection.outliers import counted

Float32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TimeCorrelation:
    """How (N,) recordings are correlated in time.

    blocks_N: see `AnomalyDetector.fit`, None where they are independent. sequences_N, states_N: see `find_blocks`, None
    where their order is not known. independent: so many independent ones they are worth. notes: for the maker.
    """

    blocks_N: Ints | None
    sequences_N: NDArray[Any] | None
    states_N: NDArray[Any] | None
    independent: float
    notes: tuple[str, ...]

    @classmethod
    def of(cls, embeddings_ND: Float32, when: Chronology, states_N: NDArray[Any]) -> TimeCorrelation:
        """states_N: labels of the recordings among which it is measured."""
        count = len(embeddings_ND)
        if not when.ordered:
            note = (
                "correlation in time is not measured, since it is not known when these recordings were made: put times "
                "into their names (pump_20240501_130507.wav), or use --order name where names are in that order"
            )
            return cls(None, None, None, float(count), (note,))
        notes = [f"correlation in time is measured in the order of {when.source}"]
        blocks = find_blocks(embeddings_ND, when.sequences_N, states_N)
        if blocks.drifting:
            notes.append(
                "these recordings drift: neighbours in time stay alike over a tenth of them and more, so the "
                "false-alarm rate rests on little; record over a longer time"
            )
        if blocks.length == 1:
            return cls(None, when.sequences_N, states_N, float(count), tuple(notes))
        blocks_N = block_numbers(blocks.length, count, when.sequences_N, states_N)
        independent = independent_recordings(embeddings_ND, when.sequences_N, states_N)
        return cls(blocks_N, when.sequences_N, states_N, independent, tuple(notes))


@dataclass(frozen=True, eq=False)
class FittedViews:
    """The views of (N,) recordings. counted_N: those of the calibration; block: recordings that count as one."""

    calibration: Calibration
    events: DetailView
    tones: DetailView | None
    counted_N: Bools
    block: int


def fit_views(
    detector: AnomalyDetector,
    embeddings_ND: Float32,
    short_time_NE: Float32,
    steady_NB: Float32,
    domains: Sequence[str],
    correlation: TimeCorrelation,
    *,
    keep_outliers: bool,
    picked_N: Bools | None = None,
    with_tones: bool = True,
) -> FittedViews:
    """Fit the detector, and those of details. picked_N: see `Basis`. with_tones: models of earlier versions have no
    view of them. Raises ValueError as detectors do."""
    count, blocks_N = len(embeddings_ND), correlation.blocks_N
    picked = np.zeros(count, dtype=bool) if picked_N is None else picked_N
    detector.fit(embeddings_ND, domains, blocks_N)

    def view(unfitted: AnomalyDetector, levels_ND: Float32) -> DetailView:
        return DetailView.fit(
            unfitted,
            levels_ND,
            domains,
            blocks_N,
            sequences_N=correlation.sequences_N,
            states_N=correlation.states_N,
            ordered=correlation.states_N is not None,
            keep_outliers=keep_outliers,
            picked_N=picked,
        )

    events = view(event_detector(), short_time_NE)
    tones = view(tone_detector(), steady_NB) if with_tones else None
    counted_N = counted(detector.train_scores_, picked, domains)
    scores = detector.train_scores_[counted_N]
    if correlation.states_N is None or correlation.sequences_N is None:
        calibration = Calibration.independent(scores)
    else:
        calibration = Calibration.fit(scores, correlation.sequences_N[counted_N], correlation.states_N[counted_N])
        calibration = calibration.worth(correlation.independent)
    return FittedViews(
        calibration, events, tones, counted_N, correlated_clips(len(scores), calibration.least_effective)
    )


def correlated_clips(count: int, least_effective: float) -> int:
    """Consecutive clips that `EDetector` takes together, of `count` that are worth at least `least_effective`.

    Blocks of twice the longest correlation time that the clips leave possible are nearly independent.
    """
    correlation_time = count / least_effective
    return ceil(2 * correlation_time) if correlation_time > 1 else 1

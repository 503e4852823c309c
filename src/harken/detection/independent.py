"""How many independent recordings those of a machine are worth that are alike in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.detection.calibration import label_codes
from harken.detection.space import standardisation


def independent_recordings(
    embeddings_ND: NDArray[np.floating],
    sequences_N: NDArray[Any] | None = None,
    states_N: NDArray[Any] | None = None,
) -> float:
    """N / t of embeddings (N, D), at least 1, each sequence in chronological order; labels: see `find_blocks`.

    Held-out scores of few recordings do not show how alike these are: a distance to the nearest is large at the edges
    of a drift only. t is the integrated autocorrelation time of the standardised embeddings, the larger of two
    estimates: Geyer's (1992) initial positive sequence of the autocorrelation averaged over dimensions, and that of a
    first-order process, (1 + r) / (1 - r), with r the correlation of neighbours plus (1 + 4 r) / N, by which N
    recordings on average show less of it (Marriott and Pope 1954).
    """
    rows_ND = np.asarray(embeddings_ND, dtype=np.float64)
    count = len(rows_ND)
    mean_D, scale_D = standardisation(rows_ND)
    z_ND = (rows_ND - mean_D) / scale_D
    state_N = label_codes(count, states_N)
    for state in np.unique(state_N):
        z_ND[state_N == state] -= z_ND[state_N == state].mean(axis=0)
    place_N = label_codes(count, sequences_N) * (int(state_N.max(initial=0)) + 1) + state_N
    covariance = np.zeros(max(count // 2, 1))
    for place in np.unique(place_N):
        of_place_ND = z_ND[place_N == place]
        lags = min(len(of_place_ND), len(covariance))
        spectrum = np.fft.rfft(of_place_ND, 2 * len(of_place_ND), axis=0)
        products = np.fft.irfft(np.abs(spectrum) ** 2, 2 * len(of_place_ND), axis=0)
        covariance[:lags] += products[:lags].sum(axis=1)
    if len(covariance) < 2 or covariance[0] <= 0:
        return float(count)
    rho = covariance / covariance[0]
    total = 0.0
    for lag in range(0, len(rho) - 1, 2):
        pair = float(rho[lag] + rho[lag + 1])
        if pair <= 0:
            break
        total += pair
    neighbours = min(float(rho[1]) + (1.0 + 4.0 * max(float(rho[1]), 0.0)) / count, 1.0 - 1.0 / count)
    time = max(2.0 * total - 1.0, (1.0 + neighbours) / (1.0 - neighbours), 1.0)
    return max(count / time, 1.0)

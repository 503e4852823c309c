"""Normal clips that are apart from most others, alone or a few together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harken.detection.outliers import beyond_gap, in_deviations
from harken.detection.space import standardisation

#: share of the clips that are a crowd, and the largest share that may be apart from it (`benchmarks/contamination.py`)
CROWD = 0.15
#: deviations of the log distances above their median from which clips are apart, and below which no others are near
_DEVIATIONS, _GAP = 3.0, 0.5
#: fewer clips are no crowd
LEAST_CROWD = 20
#: clips that all others are compared with, at most
_COMPARED = 1000


def apart(embeddings_ND: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(N,) whether each clip is far from the nearest `CROWD` of the others, every dimension standardised.

    The held-out score of a clip is that of its nearest neighbours, so that a few recordings of one fault vouch for each
    other. The distance to a rank beyond their number does not fall by their being alike. As many of the furthest are
    apart as stand in a gap above the others, as for `outliers`; none of fewer than `LEAST_CROWD`.
    """
    rows_ND = np.asarray(embeddings_ND, dtype=np.float64)
    count = len(rows_ND)
    if count < LEAST_CROWD:
        return np.zeros(count, dtype=bool)
    mean_D, scale_D = standardisation(rows_ND)
    z_ND = (rows_ND - mean_D) / scale_D
    chosen = np.unique(np.linspace(0, count - 1, min(count, _COMPARED)).round().astype(np.int64))
    rank = int(np.ceil(CROWD * len(chosen)))
    # Imported on use: scoring needs none of it.
    from scipy.spatial.distance import cdist

    distance_N = np.partition(cdist(z_ND, z_ND[chosen]), rank, axis=1)[:, rank]
    away_N = in_deviations(distance_N, upper=1 - CROWD)
    return beyond_gap(away_N, deviations=_DEVIATIONS, gap=_GAP, most=int(CROWD * count))

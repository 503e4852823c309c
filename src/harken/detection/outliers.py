"""Normal clips whose held-out scores are too high to set a threshold by."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

#: deviations of the log scores above their median beyond which a score is an outlier (`benchmarks/contamination.py`)
DEVIATIONS = 5.0
#: at most this share of the clips, or one clip, are outliers
MOST = 0.02
#: fewer clips have no outliers, since their deviation is not known
LEAST_CLIPS = 10
_UPPER = 0.9


def outliers(scores_N: ArrayLike, *, deviations: float = DEVIATIONS, most: float = MOST) -> NDArray[np.bool_]:
    """(N,) whether each held-out score is an outlier: a door, a run-in, a fault among the normal recordings.

    Beyond median + `deviations` x deviation of the log scores, where the deviation is that of a Gaussian with the same
    median and ninth decile: the upper half counts, and a tenth of outliers do not move it. The highest ones are
    outliers where they are more than `most` of all. Scores of zero or less have no logarithm, and there are no outliers
    among scores whose median is not positive.
    """
    values_N = np.asarray(scores_N, dtype=np.float64)
    beyond_N = np.zeros(len(values_N), dtype=bool)
    if len(values_N) < LEAST_CLIPS:
        return beyond_N
    median, upper = np.quantile(values_N, [0.5, _UPPER])
    if median <= 0 or upper <= median:
        return beyond_N
    deviation = np.log(upper / median) / ndtri(_UPPER)
    rows = np.flatnonzero(values_N > median * np.exp(deviations * deviation))
    highest = rows[np.argsort(-values_N[rows], kind="stable")]
    beyond_N[highest[: max(1, int(most * len(values_N)))]] = True
    return beyond_N

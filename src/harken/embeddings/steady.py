"""Steady levels of a recording: how far each band stands above the others throughout, by which tones are found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harken.embeddings.sketch import Sketch, sketch_db

Float32 = NDArray[np.float32]


def steady_levels(sketch_BC: Sketch) -> Float32:
    """(bands, columns) of `make_sketch` -> (bands,) float32 in dB: the median over time, above the median band's.

    A loud band does not change the others through a level that is normalised over the clip, and a short event does not
    change the median over time.
    """
    level_B = sketch_db(np.median(sketch_BC, axis=1))
    return np.asarray(level_B - np.median(level_B), dtype=np.float32)

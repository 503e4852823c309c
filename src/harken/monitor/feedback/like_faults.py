"""Whether sound that is said to be normal is nearer to known faults than to what is normal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harken.detection import AnomalyDetector
from harken.detection.composite import Composite
from harken.detection.in_space import in_space_of
from harken.detection.neighbours import nearest
from harken.embeddings.embedder import ClipFeatures
from harken.monitor.fitted import Fitted
from harken.monitor.judged import FaultsFound

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: a clip is like a known fault where that is nearer than this part of the distance to the nearest normal recording
NEARER = 0.8


def like_faults(fitted: Fitted, features: Sequence[ClipFeatures], faults_found: FaultsFound) -> Bools:
    """(N,) whether each clip is like a known fault that the model finds. faults_found: see `FaultsFound.by`.

    It is where, in a view by which the fault is found, distance to fault < `NEARER` x distance to nearest normal, both
    in the space of that view's detector. Sound of a new state lies far from normals and from faults alike, in
    directions of its own, so that both distances are nearly the same: hence not 1. Faults that the model does not find
    lie among the normals, and say nothing of what lies near them; those from before the last maintenance are of
    another machine.
    """
    faults = fitted.faults
    like_N = np.zeros(len(features), dtype=bool)
    if faults is None:
        return like_N
    sound_F, event_F = faults_found.sound_F & ~faults.old_F, faults_found.event_F & ~faults.old_F
    if sound_F.any():
        queries_ND = np.stack([clip.embedding for clip in features])
        like_N |= _nearer(fitted.detector, fitted.training.embeddings_ND, faults.embeddings_FD[sound_F], queries_ND)
    if event_F.any() and fitted.events is not None and fitted.basis is not None:
        queries_ND = np.stack([clip.details_D for clip in features])
        levels_ND = fitted.basis.details_NE
        like_N |= _nearer(fitted.events.detector, levels_ND, faults.details_FE[event_F], queries_ND)
    return like_N


def _nearer(
    detector: AnomalyDetector,
    normal_ND: NDArray[np.floating],
    fault_FD: NDArray[np.floating],
    queries_ND: NDArray[np.floating],
) -> Bools:
    if isinstance(detector, Composite):
        members = (detector.in_members(rows_ND) for rows_ND in (normal_ND, fault_FD, queries_ND))
        each_N = [
            _nearer(normal[0], normal[1], fault[1], query[1]) for normal, fault, query in zip(*members, strict=True)
        ]
        return np.any(each_N, axis=0)
    z_ND = in_space_of(detector, normal_ND, queries_ND)
    to_normal_N = nearest(z_ND, in_space_of(detector, normal_ND, normal_ND), 1)[0][:, 0]
    to_fault_N = nearest(z_ND, in_space_of(detector, normal_ND, fault_FD), 1)[0][:, 0]
    return to_fault_N < NEARER * to_normal_N

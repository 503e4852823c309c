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
    sound_F, event_F, tone_F = (
        found_F & ~faults.old_F for found_F in (faults_found.sound_F, faults_found.event_F, faults_found.tone_F)
    )
    if sound_F.any():
        queries_ND = np.stack([clip.embedding for clip in features])
        like_N |= _nearer(fitted.detector, fitted.training.embeddings_ND, faults.embeddings_FD[sound_F], queries_ND)
    if event_F.any() and fitted.events is not None and fitted.basis is not None:
        levels_ND, queries_ND = fitted.basis.short_time_NE, np.stack([clip.short_time_D for clip in features])
        like_N |= _nearer(fitted.events.detector, levels_ND, faults.short_time_FE[event_F], queries_ND)
    if tone_F.any() and fitted.tones is not None:
        queries_ND = np.stack([clip.steady_B for clip in features])
        like_N |= _nearer(fitted.tones.detector, fitted.training.steady_NB, faults.steady_FB[tone_F], queries_ND)
    return like_N


def _nearer(
    detector: AnomalyDetector,
    normal_ND: NDArray[np.floating],
    fault_FD: NDArray[np.floating],
    queries_ND: NDArray[np.floating],
) -> Bools:
    if isinstance(detector, Composite):
        # A member in which a fault is as the normals are says nothing of what lies near it there.
        like_N = np.zeros(len(queries_ND), dtype=bool)
        by_member = [detector.in_members(rows_ND) for rows_ND in (normal_ND, fault_FD, queries_ND)]
        finds_MF = np.stack(
            [
                member.score(rows_FD) > held_out_N.max()
                for (member, rows_FD), held_out_N in zip(by_member[1], detector.held_out_, strict=True)
            ]
        )
        finds_MF |= ~finds_MF.any(axis=0)
        for finds_F, (member, normal), (_, fault), (_, query) in zip(finds_MF, *by_member, strict=True):
            if finds_F.any():
                like_N |= _nearer(member, normal, fault[finds_F], query)
        return like_N
    z_ND = in_space_of(detector, normal_ND, queries_ND)
    to_normal_N = nearest(z_ND, in_space_of(detector, normal_ND, normal_ND), 1)[0][:, 0]
    to_fault_N = nearest(z_ND, in_space_of(detector, normal_ND, fault_FD), 1)[0][:, 0]
    return to_fault_N < NEARER * to_normal_N

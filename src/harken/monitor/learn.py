"""Embeddings of normal recordings -> fitted detector, calibration, and what its maker should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harken.data.chronology import Chronology
from harken.data.clips import Clip, names_below_common
from harken.detection import AnomalyDetector
from harken.detection.calibration import Calibration
from harken.detection.details import DetailView
from harken.detection.outliers import outliers
from harken.detection.states import find_states
from harken.embeddings.embedder import ClipFeatures
from harken.monitor.basis import Basis, Stating
from harken.monitor.normal_set import QUESTION, Excluded, Training, listed, notes_on
from harken.monitor.sensor import stacked
from harken.monitor.sessions import check_last_session, session_notes, session_numbers
from harken.monitor.views import TimeCorrelation, fit_views

Ints = NDArray[np.int64]

#: a found state of fewer recordings may be a moment of a drift
_STATE_CLIPS = 20


@dataclass(frozen=True, eq=False)
class Learned:
    """See `Fitted`."""

    calibration: Calibration
    training: Training
    notes: tuple[str, ...]
    block: int
    paths: tuple[Path, ...]
    events: DetailView
    tones: DetailView | None
    basis: Basis
    set_aside: tuple[Excluded, ...] = ()


def learn(
    detector: AnomalyDetector,
    clips: Sequence[Clip],
    features: Sequence[ClipFeatures],
    when: Chronology,
    named_states: list[str] | None,
    *,
    keep_outliers: bool = False,
) -> Learned:
    """Fit the detector to clips, which are in the order of `when`.

    named_states: operating state of each clip, where known. Outliers among the held-out scores are set aside, unless
    they are to be kept, and the detector is fitted again to the others. Raises ValueError as the detector does.
    """
    learned = _learn(detector, clips, features, when, named_states, keep_outliers)
    scores_N = learned.training.scores_N
    outlier_N = outliers(scores_N)
    if keep_outliers or not outlier_N.any():
        return learned
    rows = np.flatnonzero(~outlier_N).tolist()
    median = float(np.median(scores_N))
    aside = [
        Excluded(
            clips[row].path,
            f"is unlike all other recordings (score {scores_N[row]:.3g}, the usual one {median:.3g})",
            outlier=True,
        )
        for row in np.flatnonzero(outlier_N).tolist()
    ]
    again = _learn(
        detector,
        [clips[row] for row in rows],
        [features[row] for row in rows],
        when.of(rows),
        None if named_states is None else [named_states[row] for row in rows],
        keep_outliers,
    )
    names = listed([excluded.path.name for excluded in aside])
    note = f"left out as unlike all other recordings: {names}: {QUESTION} (--keep-outliers keeps them)"
    return replace(again, notes=(note, *again.notes), set_aside=tuple(aside))


def _learn(
    detector: AnomalyDetector,
    clips: Sequence[Clip],
    features: Sequence[ClipFeatures],
    when: Chronology,
    named_states: list[str] | None,
    keep_outliers: bool,
) -> Learned:
    embeddings_ND = np.stack([clip.embedding for clip in features])
    short_time_NE = np.stack([clip.short_time_D for clip in features])
    found_N = find_states(embeddings_ND)
    domains, stating, notes = _domains(clips, found_N, named_states)
    strata_N = _strata(domains, found_N, when)
    correlation = TimeCorrelation.of(embeddings_ND, when, strata_N)
    session_N = session_numbers(when, [clip.path for clip in clips])
    check = check_last_session(detector, embeddings_ND, domains, correlation.blocks_N, session_N)
    views = fit_views(
        detector,
        embeddings_ND,
        short_time_NE,
        np.stack([clip.steady_B for clip in features]),
        domains,
        correlation,
        keep_outliers=keep_outliers,
    )
    paths = tuple(clip.path for clip in clips)
    training = Training(
        names=names_below_common(paths),
        domains=tuple(domains),
        embeddings_ND=embeddings_ND,
        sketches_NBC=[clip.sketch_BC for clip in features],
        scores_N=detector.train_scores_,
        levels_db_N=np.array([clip.level_db for clip in features]),
        seconds_N=np.array([clip.seconds for clip in features]),
        sha256s=tuple(clip.sha256 for clip in features),
        health_NCK=stacked([clip.health for clip in features]),
    )
    notes += [*correlation.notes, *session_notes(check, when, session_N), *notes_on(training, views.calibration)]
    basis = Basis.of_fit(short_time_NE, when, stating, strata_N, keep_outliers=keep_outliers)
    return Learned(views.calibration, training, tuple(notes), views.block, paths, views.events, views.tones, basis)


def _domains(
    clips: Sequence[Clip], found_N: Ints, named_states: list[str] | None
) -> tuple[list[str], Stating, list[str]]:
    """Domain or operating state of each clip, where that is from, and notes on it. found_N: states found."""
    named = {clip.domain for clip in clips}
    if named_states is not None:
        return named_states, "named", [f"{len(set(named_states))} operating states named by the files"]
    if "unknown" not in named and len(named) > 1:
        return [str(clip.domain) for clip in clips], "domains", []
    domains = [f"state {state}" for state in found_N]
    if found_N.max() == 0:
        return domains, "found", []
    sizes = ", ".join(str(count) for count in np.bincount(found_N))
    return domains, "found", [f"{found_N.max() + 1} operating states found, of {sizes} recordings"]


def _strata(domains: Sequence[str], found_N: Ints, when: Chronology) -> NDArray[np.str_]:
    """Label of the recordings among which correlation in time is measured: those of one state, or series of names.

    Found states with fewer than `_STATE_CLIPS` recordings may be moments of a drift, and are taken together.
    """
    large = np.bincount(found_N) >= _STATE_CLIPS
    state_N = np.where(large[found_N], found_N, -1)
    named = [domain if domain != f"state {state}" else "" for domain, state in zip(domains, found_N, strict=True)]
    return np.array(["\0".join(map(str, labels)) for labels in zip(named, state_N, when.series_N, strict=True)])

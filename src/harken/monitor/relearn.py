"""A model that learns again from what it keeps of normal recordings: more of them, fewer, or the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.core.threads import one_thread
from harken.detection.in_space import in_space_of
from harken.detection.neighbours import nearest
from harken.detection.states import find_states
from harken.embeddings.embedder import ClipFeatures
from harken.monitor.basis import Basis, Heard
from harken.monitor.fitted import Fitted
from harken.monitor.judged import Judged
from harken.monitor.normal_set import Training, notes_on
from harken.monitor.off import OffJudge
from harken.monitor.sensor import stacked
from harken.monitor.views import TimeCorrelation, fit_views

#: fewest clips that make a state
_STATE_CLIPS = 3
#: recordings of updates that are kept: so many times those of the last fit, at least and at most so many
_TIMES, _LEAST_ADDED, _MOST_RECORDINGS = 3, 200, 5000
#: of more, this share is left, so that most updates leave the rows of others, and their files, as they are
_THINNED = 0.8
#: a century: no recordings are further apart
_LONG_S = 100 * 365 * 86_400.0


def basis_of_model(fitted: Fitted) -> Basis:
    """What it needs to learn again. Raises HarkenError for models that do not keep it."""
    if fitted.basis is None or fitted.events is None:
        raise HarkenError(
            Sentence(
                "this model does not keep what learning again needs: it was fitted by an earlier version of Harken, or "
                "made from a run"
            ),
            next_step=Sentence("Fit it again: harken fit NORMAL -o MODEL"),
        )
    return fitted.basis


def refitted(fitted: Fitted) -> Fitted:
    """Fitted again to the rows that `training` and `basis` have. The same rows give the same bits."""
    basis, training = basis_of_model(fitted), fitted.training
    detector = type(fitted.detector)(**fitted.detector.get_params())
    with one_thread():
        correlation = TimeCorrelation.of(training.embeddings_ND, basis.when, basis.strata_N)
        try:
            views = fit_views(
                detector,
                training.embeddings_ND,
                basis.short_time_NE,
                training.steady_NB,
                training.domains,
                correlation,
                keep_outliers=basis.keep_outliers,
                picked_N=basis.picked_N,
                with_tones=fitted.tones is not None,
            )
        except ValueError as error:
            raise HarkenError(
                Sentence("cannot be learned again: {reason}", reason=str(error)),
                next_step=Sentence("Fit the model again"),
            ) from error
        again = replace(training, scores_N=detector.train_scores_)
        off_notes = [] if fitted.off is None else OffJudge(fitted.off, again).notes()
        return replace(
            fitted,
            detector=detector,
            calibration=views.calibration,
            events=views.events,
            tones=views.tones,
            training=again,
            counted_N=None if views.counted_N.all() else views.counted_N,
            block=views.block,
            notes=(*correlation.notes, *notes_on(again, views.calibration), *off_notes),
        )


def learned_again(fitted: Fitted) -> Fitted:
    """With the detectors that its rows gave once. Raises ValueError where their held-out scores are not the same."""
    again = refitted(fitted)
    if again.events is None or fitted.events is None:
        raise ValueError("no view of short events")
    pairs = [
        (again.training.scores_N, fitted.training.scores_N),
        (again.events.scores_N, fitted.events.scores_N),
    ]
    tones = None
    if again.tones is not None and fitted.tones is not None:
        pairs.append((again.tones.scores_N, fitted.tones.scores_N))
        tones = replace(fitted.tones, detector=again.tones.detector)
    if not all(np.allclose(now_N, then_N, rtol=1e-6) for now_N, then_N in pairs):
        raise ValueError("other scores than this version of Harken learns from the same recordings")
    events = replace(fitted.events, detector=again.events.detector)
    return replace(fitted, detector=again.detector, events=events, tones=tones)


def extended(fitted: Fitted, heard: Sequence[Heard], judged: Sequence[Judged], version: int) -> Fitted:
    """With the rows of further recordings, to be `refitted`. judged: by the model as it is."""
    basis, training = basis_of_model(fitted), fitted.training
    features = [clip.features for clip in heard]
    picked_N = np.array([clip.kind in ("alarm", "suspect") for clip in judged], dtype=bool)
    domains, strata_N = _states(fitted, features, judged, version)
    count = len(training.names) + len(heard)
    times_N = np.array([np.nan if clip.time_s is None else clip.time_s for clip in heard])
    earlier_N = np.full(len(training.names), np.nan) if basis.when.seconds_N is None else basis.when.seconds_N
    timed = basis.when.seconds_N is not None or bool(np.isfinite(times_N).any())
    health_NCK = None
    if training.health_NCK is not None:
        of_new = stacked([clip.health for clip in features])
        if of_new is not None and of_new.shape[1:] == training.health_NCK.shape[1:]:
            health_NCK = np.concatenate([training.health_NCK, of_new])
    when = replace(
        basis.when,
        order_N=np.arange(count),
        sequences_N=np.concatenate([basis.when.sequences_N, _sequences(heard, times_N, version)]),
        series_N=np.zeros(count).astype(str),
        seconds_N=np.concatenate([earlier_N, times_N]) if timed else None,
        recordings_N=None,
    )
    return replace(
        fitted,
        training=Training(
            names=(*training.names, *(clip.name for clip in heard)),
            domains=(*training.domains, *domains),
            embeddings_ND=np.concatenate([training.embeddings_ND, np.stack([clip.embedding for clip in features])]),
            sketches_NBC=[*training.sketches_NBC, *(clip.sketch_BC for clip in features)],
            scores_N=np.zeros(count),
            levels_db_N=np.concatenate([training.levels_db_N, [clip.level_db for clip in features]]),
            seconds_N=np.concatenate([training.seconds_N, [clip.seconds for clip in features]]),
            sha256s=(*training.sha256s, *(clip.sha256 for clip in features)),
            health_NCK=health_NCK,
        ),
        basis=replace(
            basis,
            short_time_NE=np.concatenate([basis.short_time_NE, np.stack([clip.short_time_D for clip in features])]),
            when=when,
            strata_N=np.concatenate([basis.strata_N, strata_N]),
            version_N=np.concatenate([basis.version_N, np.full(len(heard), version)]),
            picked_N=np.concatenate([basis.picked_N, picked_N]),
        ),
    )


def without_rows(fitted: Fitted, rows: Sequence[int]) -> Fitted:
    """Without some normal recordings, to be `refitted`."""
    training, basis = fitted.training, basis_of_model(fitted)
    kept = np.setdiff1d(np.arange(len(training.names)), rows)
    return replace(
        fitted,
        training=Training(
            names=tuple(training.names[row] for row in kept),
            domains=tuple(training.domains[row] for row in kept),
            embeddings_ND=training.embeddings_ND[kept],
            sketches_NBC=[training.sketches_NBC[row] for row in kept],
            scores_N=training.scores_N[kept],
            levels_db_N=training.levels_db_N[kept],
            seconds_N=training.seconds_N[kept],
            sha256s=tuple(training.sha256s[row] for row in kept),
            health_NCK=None if training.health_NCK is None else training.health_NCK[kept],
        ),
        basis=basis.of(kept),
    )


def surplus_rows(fitted: Fitted) -> list[int]:
    """Recordings of updates to leave out, so that a model does not grow without end; none of the last fit.

    Up to three times as many as the last fit had are kept, at least 200, up to 5,000 recordings in all; where there are
    more, four fifths of that. Of the state with
    most recordings of updates, the one goes whose neighbours in time are nearest (of equal ones the earlier), until
    few enough are left: what is heard in one go is thinned out before what is heard on different days, and no state is
    given up. The detector normalises distances by density; so recordings are not chosen by their distances.
    """
    basis = basis_of_model(fitted)
    added = np.flatnonzero(basis.version_N != basis.base)
    of_fit = len(basis.version_N) - len(added)
    most = max(_LEAST_ADDED, min(_TIMES * of_fit, _MOST_RECORDINGS - of_fit))
    domains = np.asarray(fitted.training.domains)[added]
    place_N = _places(basis)
    rows_of: dict[str, list[int]] = {}
    for domain in np.unique(domains):
        rows = added[domains == domain]
        rows_of[str(domain)] = rows[np.argsort(place_N[rows], kind="stable")].tolist()
    dropped: list[int] = []
    target = len(added) if len(added) <= most else int(_THINNED * most)
    while len(added) - len(dropped) > target:
        of_largest = rows_of[max(sorted(rows_of), key=lambda domain: len(rows_of[domain]))]
        place = np.concatenate([[-np.inf], place_N[of_largest], [np.inf]])
        gap_N = np.minimum(np.diff(place), _LONG_S)
        dropped.append(of_largest.pop(int(np.argmin(gap_N[:-1] + gap_N[1:]))))
    return sorted(dropped)


def _places(basis: Basis) -> NDArray[np.float64]:
    """(N,) times of recordings in seconds; of those without one, between those of their neighbours."""
    seconds_N = basis.when.seconds_N
    rows = np.arange(len(basis.version_N), dtype=np.float64)
    if seconds_N is None or not np.isfinite(seconds_N).any():
        return rows
    known_N = np.isfinite(seconds_N)
    return np.interp(rows, rows[known_N], seconds_N[known_N])


def _states(
    fitted: Fitted, features: Sequence[ClipFeatures], judged: Sequence[Judged], version: int
) -> tuple[list[str], NDArray[np.str_]]:
    """Domain and stratum of each clip: those of the normal recording most alike, or new ones.

    Clips whose sound is unlike all normal recordings are of a new state where they are more like each other.
    """
    basis, training = basis_of_model(fitted), fitted.training
    domains = [training.domains[clip.nearest] for clip in judged]
    strata = [str(basis.strata_N[clip.nearest]) for clip in judged]
    highest = float(fitted.calibration.scores[-1])
    odd = [row for row, clip in enumerate(judged) if clip.score is not None and clip.score > highest]
    if len(odd) < _STATE_CLIPS:
        return domains, np.array(strata)
    odd_ND = np.stack([features[row].embedding for row in odd])
    z_ND = in_space_of(fitted.detector, training.embeddings_ND, odd_ND)
    normal_ND = in_space_of(fitted.detector, training.embeddings_ND, training.embeddings_ND)
    to_normal_N = nearest(z_ND, normal_ND, 1)[0][:, 0]
    state_N = find_states(odd_ND, fewest_clips=_STATE_CLIPS)
    for state in range(int(state_N.max()) + 1):
        members = np.flatnonzero(state_N == state)
        itself = np.arange(len(members))
        if len(members) < _STATE_CLIPS:
            continue
        to_each_other_N = nearest(z_ND[members], z_ND[members], 1, query_blocks_N=itself, bank_blocks_M=itself)[0]
        if np.median(to_each_other_N) >= np.median(to_normal_N[members]):
            continue
        label = f"learned {version}" if state == 0 else f"learned {version}.{state}"
        for member in members:
            domains[odd[member]] = strata[odd[member]] = label
    return domains, np.array(strata)


def _sequences(heard: Sequence[Heard], times_N: NDArray[np.float64], version: int) -> NDArray[np.str_]:
    """Labels of those of a version among which time is known."""
    if np.isfinite(times_N).all():
        return np.full(len(heard), f"version {version}")
    names = [clip.recording or str(number) for number, clip in enumerate(heard)]
    return np.array([f"version {version} {name}" for name in names])

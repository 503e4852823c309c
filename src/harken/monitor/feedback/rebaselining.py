"""A model learns anew what is normal, as after maintenance, and keeps all else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.core.threads import one_thread
from harken.data.chronology import Chronology
from harken.data.clips import Clip
from harken.monitor.basis import Heard
from harken.monitor.feedback.change import ModelChange, changed
from harken.monitor.feedback.effect import effect_of
from harken.monitor.feedback.update_checks import as_learned, in_order
from harken.monitor.fitted import Fitted
from harken.monitor.judged import held_out_kinds, judged_clips
from harken.monitor.learn import learn
from harken.monitor.normal_set import defect_of
from harken.monitor.relearn import basis_of_model
from harken.monitor.usable import LEAST_CLIPS
from harken.monitor.versions import check_texts


def rebaseline(
    fitted: Fitted,
    heard: Sequence[Heard],
    *,
    who: str,
    why: str = "",
    origin: str = "",
    now: datetime | None = None,
) -> ModelChange:
    """Learn the normal sound anew from these recordings alone, as after maintenance.

    Encoder, detector, alarm, recordings of the machine switched off and the effect of length stay. Known faults are
    kept, marked as from before the maintenance: they are counted, and refuse no update. Outliers among the recordings
    are set aside as by `harken fit`. Raises HarkenError for fewer than three that can be learned from.
    """
    check_texts(who, why, origin)
    basis = basis_of_model(fitted)
    ordered = in_order(heard)
    ordered = as_learned(fitted, ordered)
    set_aside: list[tuple[str, str]] = []
    rows = []
    seen: set[bytes] = set()
    for row, clip in enumerate(ordered):
        reason = defect_of(clip.features, basis.usual)
        if reason is None and clip.features.embedding.tobytes() in seen:
            reason = "is the same as another one"
        if reason is None:
            seen.add(clip.features.embedding.tobytes())
            rows.append(row)
        else:
            set_aside.append((clip.name, reason))
    if len(rows) < LEAST_CLIPS:
        raise HarkenError(
            Sentence(
                "{count} of {given} recordings can be learned from, at least {least} are needed",
                count=len(rows),
                given=len(heard),
                least=LEAST_CLIPS,
            ),
            next_step=Sentence("Record more normal sound: 30 or more make a useful model"),
        )
    chosen = [ordered[row] for row in rows]
    features = [clip.features for clip in chosen]
    judged = judged_clips(fitted, features)
    number = fitted.version.number + 1
    paths = [Path(clip.name) for clip in chosen]
    if len(set(paths)) < len(paths):
        paths = [path.with_name(f"{path.name} ({row})") for row, path in enumerate(paths)]
    detector = type(fitted.detector)(**fitted.detector.get_params())
    with one_thread():
        learned = learn(
            detector,
            [Clip(clip_id=str(path), path=path) for path in paths],
            features,
            chronology_of(chosen),
            None,
            keep_outliers=basis.keep_outliers,
        )
    kept = set(learned.paths)
    names = tuple(clip.name for clip, path in zip(chosen, paths, strict=True) if path in kept)
    set_aside += [(str(excluded.path), excluded.reason) for excluded in learned.set_aside]
    faults = fitted.faults
    after = replace(
        fitted,
        detector=detector,
        calibration=learned.calibration,
        training=replace(learned.training, names=names),
        block=learned.block,
        events=learned.events,
        tones=learned.tones,
        basis=replace(learned.basis, usual=basis.usual, base=number, version_N=np.full(len(learned.paths), number)),
        counted_N=None,
        faults=None if faults is None else replace(faults, old_F=np.ones(len(faults), dtype=bool)),
        notes=learned.notes,
    )
    alarms = (
        sum(clip.kind == "alarm" for clip in judged),
        held_out_kinds(after, range(len(learned.paths))).count("alarm"),
    )
    effect = effect_of(fitted, after, "rebaseline", learned=len(learned.paths), alarms=alarms, set_aside=set_aside)
    return changed(fitted, after, effect, "rebaseline", who, why, origin, now)


def chronology_of(heard: Sequence[Heard]) -> Chronology:
    """Order of recordings, which are given in it as far as it is known."""
    count = len(heard)
    same_N = np.zeros(count).astype(str)
    times = [clip.time_s for clip in heard]
    recordings = np.array([clip.recording or clip.name for clip in heard])
    if all(time_s is not None for time_s in times):
        seconds_N = np.array(times, dtype=np.float64)
        return Chronology("time", True, np.arange(count), same_N, same_N, seconds_N, recordings)
    if any(clip.recording for clip in heard):
        return Chronology("segments of recordings", True, np.arange(count), recordings, same_N, None, recordings)
    return Chronology("nothing", False, np.arange(count), same_N, same_N)

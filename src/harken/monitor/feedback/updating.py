"""A model learns that recordings were normal: as a new version, from their features.

    change = update(fitted, heard, who="ANNA", why="new recipe since Tuesday")
    change.fitted, change.effect, change.version

`heard` are recordings or windows whose features are there (`Heard`): nothing is listened to. Nothing is changed in
place and nothing is written: `changes` does the same to a model on the disk, and rolls it back.

The recordings are added to those that the model keeps, and detector, short events and thresholds are fitted again, in
seconds. Clips that were alarms were chosen for their scores; which of them count for the threshold is in
`detection.outliers.counted`. An update is refused, unless it is forced, where one of its recordings is nearer to a
known fault than to what is normal (`like_faults`), and where more than a tenth of the known faults that are found
would be no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from harken.core.errors import HarkenError
from harken.core.names import shown
from harken.core.sentences import Sentence
from harken.monitor.basis import Heard, KnownFaults
from harken.monitor.feedback.change import ModelChange, changed
from harken.monitor.feedback.effect import MOST_LOST, ChangeRefused, Effect, effect_of
from harken.monitor.feedback.like_faults import like_faults
from harken.monitor.feedback.update_checks import as_learned, in_order, learnable_rows
from harken.monitor.fitted import Fitted
from harken.monitor.judged import FaultsFound, held_out_kinds
from harken.monitor.normal_set import listed
from harken.monitor.relearn import basis_of_model, extended, refitted, surplus_rows, without_rows
from harken.monitor.versions import check_texts

_FORCE = Sentence("If it is normal all the same, force it (--force)")


def update(
    fitted: Fitted,
    heard: Sequence[Heard],
    *,
    who: str,
    why: str = "",
    origin: str = "",
    force: bool = False,
    now: datetime | None = None,
) -> ModelChange:
    """Learn that these recordings are normal, in the order of time as far as that is known.

    origin: where they are from, in words. force: learn from them although they are like known faults, or faults would
    be found no more; faults that are among them are known no more. now: when (default: now).
    Raises ChangeRefused where it is not forced, HarkenError where none can be learned from or the model cannot learn
    again.
    """
    check_texts(who, why, origin)
    basis_of_model(fitted)
    ordered = in_order(heard)
    ordered = as_learned(fitted, ordered)
    judged, set_aside, rows = learnable_rows(fitted, ordered)
    if not rows:
        none = Sentence("none of these {count} recordings is to be learned from", count=len(heard))
        if set_aside:
            name, reason = shown(set_aside[0][0]), set_aside[0][1]
            none = Sentence("{none}: {name} {reason}", none=none, name=name, reason=reason)
        raise HarkenError(none, next_step=Sentence("Give others"))
    chosen, said = [ordered[row] for row in rows], [judged[row] for row in rows]
    alike_N = like_faults(fitted, [clip.features for clip in chosen], FaultsFound.by(fitted))
    faults = fitted.faults
    # The very recording of a fault is one, whether the model finds it or not.
    same = set() if faults is None else {fault_D.tobytes() for fault_D in faults.embeddings_FD[~faults.old_F]}
    alike = [
        clip.name
        for clip, like in zip(chosen, alike_N, strict=True)
        if like or clip.features.embedding.tobytes() in same
    ]
    if alike and not force:
        raise ChangeRefused(
            Sentence(
                "{count} of these {given} recordings are nearer to known faults than to what is normal: {names}",
                count=len(alike),
                given=len(chosen),
                names=listed(alike),
            ),
            next_step=Sentence("Listen to them, and leave them out. {force}", force=_FORCE),
        )
    number = fitted.version.number + 1
    before = replace(fitted, faults=_without_same(fitted.faults, chosen))
    after = extended(before, chosen, said, number)
    surplus = surplus_rows(after)
    after = refitted(without_rows(after, surplus) if surplus else after)
    assert after.basis is not None
    new_rows = np.flatnonzero(after.basis.version_N == number).tolist()
    effect = effect_of(
        before,
        after,
        "update",
        learned=len(chosen),
        alarms=(sum(clip.kind == "alarm" for clip in said), held_out_kinds(after, new_rows).count("alarm")),
        like_faults=alike,
        set_aside=set_aside,
        dropped=len(surplus),
    )
    _check_lost(before, effect, force)
    return changed(fitted, after, effect, "update", who, why, origin, now, forced=force and bool(alike or effect.lost))


def _without_same(faults: KnownFaults | None, heard: Sequence[Heard]) -> KnownFaults | None:
    """Without those that are among what is now said to be normal."""
    if faults is None:
        return None
    normal = {clip.features.embedding.tobytes() for clip in heard}
    kept = [row for row in range(len(faults)) if faults.embeddings_FD[row].tobytes() not in normal]
    return faults.rows(kept) if kept else None


def _check_lost(before: Fitted, effect: Effect, force: bool) -> None:
    if force or before.faults is None or not effect.lost:
        return
    old = {name for name, is_old in zip(before.faults.names, before.faults.old_F, strict=True) if is_old}
    lost = [name for name in effect.lost if name not in old]
    if len(lost) > MOST_LOST * effect.found_before:
        raise ChangeRefused(
            Sentence(
                "{count} of {known} known faults that are found now would be no more: {names}",
                count=len(lost),
                known=effect.found_before,
                names=listed(lost),
            ),
            next_step=Sentence(
                "Listen to the recordings, and leave out what is no normal sound. {force}", force=_FORCE
            ),
        )

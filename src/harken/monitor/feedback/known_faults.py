"""A model keeps recordings of faults, against which its versions are checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.monitor.basis import Heard, KnownFaults
from harken.monitor.clip_judge import ClipJudge
from harken.monitor.feedback.change import ModelChange, changed
from harken.monitor.feedback.effect import effect_of
from harken.monitor.feedback.update_checks import as_learned
from harken.monitor.fitted import Fitted
from harken.monitor.judged import FaultsFound, judged_clips
from harken.monitor.relearn import basis_of_model, refitted, without_rows
from harken.monitor.usable import LEAST_CLIPS
from harken.monitor.versions import check_texts

#: known faults that are kept; of more, the oldest go
MOST_FAULTS = 500


def add_faults(
    fitted: Fitted,
    heard: Sequence[Heard],
    *,
    who: str,
    why: str = "",
    origin: str = "",
    now: datetime | None = None,
) -> ModelChange:
    """Keep these recordings as known faults; those that were learned as normal are so no more.

    Raises HarkenError where the model does not keep what it needs, or would have too few normal recordings left.
    """
    check_texts(who, why, origin)
    basis_of_model(fitted)
    heard = as_learned(fitted, heard)
    number = fitted.version.number + 1
    judged = judged_clips(fitted, [clip.features for clip in heard])
    earlier = fitted.faults
    vectors = set() if earlier is None else {vector.tobytes() for vector in earlier.embeddings_FD}
    new: list[Heard] = []
    for clip in heard:
        vector = clip.features.embedding.tobytes()
        if vector not in vectors:
            vectors.add(vector)
            new.append(clip)
    if not new:
        raise HarkenError(Sentence("these recordings are known faults already"), next_step=Sentence("Give others"))
    faults = KnownFaults.of(new, number)
    faults = faults if earlier is None else earlier.joined(faults)
    if len(faults) > MOST_FAULTS:
        order = np.lexsort((np.arange(len(faults)), ~faults.old_F))
        faults = faults.rows(np.sort(order[len(faults) - MOST_FAULTS :]))
    before = replace(fitted, faults=faults)
    judge = ClipJudge(fitted)
    learned = sorted({row for clip in new if (row := judge.learned_row(clip.features)) is not None})
    after = before
    if learned:
        if len(fitted.training.names) - len(learned) < LEAST_CLIPS:
            raise HarkenError(
                Sentence("these recordings are nearly all that the model learned from as normal"),
                next_step=Sentence("Fit it again from normal ones: harken fit NORMAL -o MODEL"),
            )
        after = refitted(without_rows(before, learned))
    found_F = FaultsFound.by(after).any_F[-len(new) :]
    effect = effect_of(
        before,
        after,
        "fault",
        learned=len(new),
        alarms=(sum(clip.kind == "alarm" for clip in judged), int(found_F.sum())),
        dropped=len(learned),
    )
    return changed(fitted, after, effect, "fault", who, why, origin, now)

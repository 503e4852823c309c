"""Which recordings a model that was fitted can learn from as normal, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harken.core.errors import HarkenError
from harken.core.sentences import Sentence
from harken.embeddings.embedder import ClipFeatures
from harken.monitor.basis import Heard
from harken.monitor.clip_judge import ClipJudge
from harken.monitor.fitted import Fitted
from harken.monitor.judged import Judged, judged_clips
from harken.monitor.normal_set import defect_of, near_duplicate_rows


def in_order(heard: Sequence[Heard]) -> list[Heard]:
    """In the order of time where that of all is known. Raises HarkenError for none."""
    if not heard:
        raise HarkenError(
            Sentence("no recordings were given"), next_step=Sentence("Name recordings or folders of them")
        )
    times = [clip.time_s for clip in heard]
    if any(time_s is None for time_s in times):
        return list(heard)
    return [heard[row] for row in np.argsort(np.array(times, dtype=np.float64), kind="stable")]


def as_learned(fitted: Fitted, heard: Sequence[Heard]) -> list[Heard]:
    """The clips. Raises HarkenError for features of another model."""
    assert fitted.basis is not None
    learned = fitted.training.embeddings_ND.shape[1], fitted.basis.short_time_NE.shape[1]
    for clip in heard:
        if (len(clip.features.embedding), len(clip.features.short_time_D)) != learned:
            raise HarkenError(
                Sentence("has features of another model"),
                file=clip.name,
                next_step=Sentence("Make them with the encoder of this model"),
            )
    return list(heard)


def learnable_rows(fitted: Fitted, heard: Sequence[Heard]) -> tuple[list[Judged], list[tuple[str, str]], list[int]]:
    """What the model says of each, which are set aside and why, and the rows of the others."""
    assert fitted.basis is not None
    judge = ClipJudge(fitted)
    judged = judged_clips(fitted, [clip.features for clip in heard])
    set_aside: list[tuple[str, str]] = []
    rows: list[int] = []
    seen: set[bytes] = set()
    for row, (clip, said) in enumerate(zip(heard, judged, strict=True)):
        reason = said.reason or defect_of(clip.features, fitted.basis.usual)
        if reason is None and judge.learned_row(clip.features) is not None:
            reason = "is learned already"
        if reason is None and clip.features.embedding.tobytes() in seen:
            reason = "is the same as another one"
        if reason is None:
            seen.add(clip.features.embedding.tobytes())
            rows.append(row)
        else:
            set_aside.append((clip.name, reason))
    earlier = _kept_features(fitted)
    duplicates = near_duplicate_rows(
        [*earlier, *(heard[row].features for row in rows)], fitted.spec.sample_rate, len(earlier)
    )
    # What differs from a learned one by a short event alone, and is an alarm for it, is no repetition.
    repeated = {
        rows[row - len(earlier)]
        for row, first in duplicates.items()
        if first >= len(earlier) or judged[rows[row - len(earlier)]].kind != "alarm"
    }
    set_aside += [(heard[row].name, "is nearly the same as one that is learned") for row in sorted(repeated)]
    return judged, set_aside, [row for row in rows if row not in repeated]


def _kept_features(fitted: Fitted) -> list[ClipFeatures]:
    training = fitted.training
    return [
        ClipFeatures(
            training.embeddings_ND[row],
            training.sketches_NBC[row],
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
            float(training.levels_db_N[row]),
            float(training.seconds_N[row]),
            "",
            (),
        )
        for row in range(len(training.names))
    ]

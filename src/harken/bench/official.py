"""Official results of scores, by the labels in a clips table."""

from __future__ import annotations

from collections.abc import Sequence

from harken.core.errors import HarkenError
from harken.data import catalog
from harken.data.clips import Clip
from harken.data.names import without_suffix
from harken.data.truth import Label, Truth
from harken.evaluation.evaluate import Result, evaluate_system
from harken.evaluation.scores import Scores


def official_result(table: Scores, clips: Sequence[Clip], truth: Truth | None) -> tuple[Result | None, str]:
    """Official result, or the reason without one: unknown labels, or a missing class. truth: where labels are from."""
    of_id = {clip.clip_id: clip for clip in clips}
    scored = [of_id[clip_id] for clip_id in table.test.clip_id]
    labels = truth_of_tests(scored, truth)
    if labels is None:
        return None, "the labels of its test clips are not known"
    try:
        return evaluate_system(table, labels, year=official_year(scored)), ""
    except HarkenError as error:
        return None, error.cause


def truth_of_tests(clips: Sequence[Clip], truth: Truth | None) -> Truth | None:
    """The labels of test clips; None if one is unknown."""
    labels = Truth("the clips table")
    for clip in clips:
        if clip.condition == "unknown":
            return None
        label = Label(clip.condition == "anomaly", clip.domain)
        labels.add((clip.machine, clip.section), without_suffix(clip.path.name), label)
    labels.official = truth is not None and truth.official and bool(labels.labels.keys() & truth.labels.keys())
    return labels


def official_year(clips: Sequence[Clip]) -> int | None:
    """The year of their official rule; None if unknown."""
    return next((clip.year for clip in clips if clip.year in catalog.years()), None)

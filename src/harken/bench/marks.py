"""Marks of the numbers of a stage, with their reasons; what a report says of the use of labels, made from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from harken.bench.graph import is_evaluation
from harken.bench.recipe import Recipe
from harken.bench.stages import stage_class
from harken.evaluation.scores import PUBLISHED, SEEN, TRANSDUCTIVE, TUNED

#: mark -> what labels or test clips were used for, besides the numbers
_USES = {
    TUNED: "labels of the same test clips chose checkpoints or weights of what is marked “tuned on test”",
    SEEN: "labels of other test clips of the same machines chose checkpoints or weights of what is marked "
    "“machines seen with labels”",
    PUBLISHED: "weights marked “published weights” were chosen by their authors, with labels of their own test clips",
    TRANSDUCTIVE: "scores marked “transductive” depend on the other test clips",
}


def marks_of(
    recipe: Recipe, stage: str, label: str, machines: Collection[str], labelled: Collection[str]
) -> dict[str, str]:
    """Marks of the scores of a stage on a set where it, or one that it depends on, uses labels of test clips.

    machines: of the set. labelled: machines whose test clips stages may get with labels; of evaluation sets no stage
    gets any. `tuned on test` on a set whose clips have labels, else `machines seen with labels` where a machine of the
    set is among them.
    """
    for name in (stage, *_ancestors(recipe, stage)):
        entry = recipe.stages[name]
        cls = stage_class(entry.use)
        if not cls.uses_test_labels(cls.Parameters.model_validate(entry.parameters)):
            continue
        if not is_evaluation(label):
            return {TUNED: f"stage {name} chose what it made by the labels of test clips"}
        if seen := sorted({*machines} & {*labelled}):
            return {SEEN: f"stage {name} chose what it made by the labels of other test clips of {', '.join(seen)}"}
    return {}


def use_of_labels(marks: Iterable[Mapping[str, str]]) -> str:
    """Sentences on what labels of test clips were used for, from the marks of all systems of a run."""
    marked = {mark for each in marks for mark in each}
    uses = [text for mark, text in _USES.items() if mark in marked]
    uses += [f"see the reasons of what is marked “{mark}”" for mark in sorted(marked - _USES.keys())]
    first = "Detectors and thresholds learned from training clips only"
    first += "; labels of test clips were used for the numbers above"
    if not uses:
        return f"{first} and nothing else."
    return f"{first}. Besides: {'; '.join(uses)}."


def _ancestors(recipe: Recipe, stage: str) -> list[str]:
    ancestors: dict[str, None] = {}
    for source in recipe.stages[stage].inputs:
        ancestors |= dict.fromkeys([source, *_ancestors(recipe, source)])
    return list(ancestors)

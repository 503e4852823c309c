"""Marks of the numbers of a stage, with their reasons."""

from __future__ import annotations

from harken.bench.graph import is_evaluation
from harken.bench.recipe import Recipe
from harken.bench.stages import stage_class
from harken.evaluation.scores import TUNED


def marks_of(recipe: Recipe, stage: str, label: str) -> dict[str, str]:
    """Marks of the scores of a stage on a set: `tuned on test` where it, or one that it depends on, uses labels of
    test clips; no stage gets those of evaluation sets."""
    if is_evaluation(label):
        return {}
    for name in (stage, *_ancestors(recipe, stage)):
        entry = recipe.stages[name]
        cls = stage_class(entry.use)
        if cls.uses_test_labels(cls.Parameters.model_validate(entry.parameters)):
            return {TUNED: f"stage {name} chose what it made by the labels of test clips"}
    return {}


def _ancestors(recipe: Recipe, stage: str) -> list[str]:
    ancestors: dict[str, None] = {}
    for source in recipe.stages[stage].inputs:
        ancestors |= dict.fromkeys([source, *_ancestors(recipe, source)])
    return list(ancestors)

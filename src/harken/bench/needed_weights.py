"""Weights of the catalogue that a recipe needs and that are not on this machine."""

from __future__ import annotations

from collections import defaultdict

from harken.bench.recipe import Recipe
from harken.bench.stages import stage_class
from harken.core.errors import WeightsError


def missing_weights(recipe: Recipe) -> dict[str, list[str]]:
    """By checkpoint the stages that need it; see `Stage.checkpoints`."""
    from harken.weights.cache import cached, status
    from harken.weights.catalog import catalog

    ready = {record.name for record in cached()} | {entry.name for entry in catalog() if status(entry) != "missing"}
    absent = {entry.name for entry in catalog()} - ready
    stages: dict[str, list[str]] = defaultdict(list)
    for name, entry in recipe.stages.items():
        cls = stage_class(entry.use)
        for checkpoint in dict.fromkeys(cls.checkpoints(recipe.parameters_of(name))):
            if checkpoint in absent:
                stages[checkpoint].append(name)
    return dict(stages)


def check_weights(recipe: Recipe) -> None:
    """Raise WeightsError, naming all that are missing, before stages run for days that others wait for."""
    for name, entry in recipe.stages.items():
        try:
            stage_class(entry.use).check_files(recipe.parameters_of(name))
        except WeightsError as error:
            raise WeightsError(f"stage {name}: {error.cause}", file=error.file, next_step=error.next_step) from None
    missing = missing_weights(recipe)
    if not missing:
        return
    stages = ", ".join(dict.fromkeys(name for names in missing.values() for name in names))
    raise WeightsError(
        f"the weights {', '.join(missing)} are not on this machine, for the stages {stages}",
        next_step=f"Run: {'; '.join(f'harken weights fetch {name}' for name in missing)} (or, offline: harken weights "
        "add FILE)",
    )

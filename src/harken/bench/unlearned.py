"""Conditions of which clips are to be generated, or screened, by something that does not learn them: found from the
clips before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from harken.bench.recipe import Recipe
from harken.bench.stages import stage_class
from harken.bench.stages.generate import GenerateStage
from harken.bench.stages.labels import LabelsStage
from harken.bench.stages.rare_conditions import RareConditionsStage
from harken.bench.stages.screen import ScreenStage
from harken.bench.stages.train_classifier import TrainClassifierStage
from harken.bench.stages.train_diffusion import TrainDiffusionStage
from harken.bench.stages.trainings import chosen_years
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.data.labels import UNUSED
from harken.generation.conditions import ConditionKey, normal_clips


def check_conditions(recipe: Recipe, clips: Sequence[Clip]) -> None:
    """Raise HarkenError for a condition that a generator is to make clips of and will not have learned; those from
    captions make clips of any. clips: of training, of all machines."""
    for name, entry in recipe.stages.items():
        if not issubclass(stage_class(entry.use), GenerateStage):
            continue
        (source,) = recipe.inputs_of(name)["generator"]
        unlearned = _without(_generated(recipe, name, clips), _learned(recipe, source, clips))
        if unlearned:
            raise HarkenError(
                f"stage {name}: {source} learns nothing of {_listed(unlearned)}", file=recipe.name,
                next_step="Train it on clips of it (years), or leave it out of the table of conditions",
            )  # fmt: skip


def unscreened_conditions(recipe: Recipe, clips: Sequence[Clip]) -> list[str]:
    """Findings on stages that screen clips of conditions which their classifiers will not have learned: they keep
    none of these."""
    notes = []
    for name, entry in recipe.stages.items():
        if not issubclass(stage_class(entry.use), ScreenStage):
            continue
        inputs = recipe.inputs_of(name)
        kind = "classifier" if recipe.parameters_of(name).classifier == "xception" else "labels"
        for source in inputs.get(kind, ()):
            made = [key for stage in inputs["clips"] for key in _generated(recipe, stage, clips)]
            unlearned = _without(made, _learned(recipe, source, clips))
            if unlearned:
                notes.append(f"stage {name}: {source} learns nothing of {_listed(unlearned)}: no clip of it is kept")
    return notes


def _generated(recipe: Recipe, stage: str, clips: Sequence[Clip]) -> Iterator[ConditionKey]:
    """Conditions that a stage makes clips of; of another than `generate`, those of the stages that it reads."""
    for sources in recipe.inputs_of(stage).values():
        for source in sources:
            if issubclass(stage_class(recipe.stages[source].use), RareConditionsStage):
                # What is wrong with a table is an error of its stage.
                with suppress(HarkenError):
                    rows, _ = RareConditionsStage.conditions(recipe.parameters_of(source), clips)
                    yield from (row.key for row in rows if row.generate)
            elif stage_class(recipe.stages[source].use).makes == "clips":
                yield from _generated(recipe, source, clips)


def _learned(recipe: Recipe, stage: str, clips: Sequence[Clip]) -> frozenset[ConditionKey] | None:
    """Conditions that a stage learns, or has classes for; None where it needs none, or cannot say."""
    cls, parameters = stage_class(recipe.stages[stage].use), recipe.parameters_of(stage)
    if issubclass(cls, TrainDiffusionStage | TrainClassifierStage):
        return frozenset(normal_clips(chosen_years(parameters.years, clips)))
    if issubclass(cls, LabelsStage):
        with suppress(HarkenError):
            class_of = cls.classes(parameters, clips).class_of
            return frozenset(
                key
                for key, rows in normal_clips(clips).items()
                if any(class_of.get(clip.clip_id, UNUSED) != UNUSED for clip in rows)
            )
    return None


def _without(keys: Iterator[ConditionKey] | list[ConditionKey], learned: frozenset[ConditionKey] | None) -> list[str]:
    return [] if learned is None else list(dict.fromkeys(str(key) for key in keys if key not in learned))


def _listed(conditions: Sequence[str]) -> str:
    more = len(conditions) - 1
    return conditions[0] + (f" and {more} more condition{'s' * (more > 1)}" if more else "")

"""The sections that each system will score, found from the clips before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harken.bench.graph import Unit
from harken.bench.recipe import Recipe
from harken.bench.stages import stage_class
from harken.core.errors import HarkenError


def check_sections(recipe: Recipe, units: Sequence[Unit]) -> None:
    """Raise HarkenError for a stage or ensemble that mixes scores of different sections."""
    for unit in units:
        for name, members in _mixes(recipe):
            scored = {member: of for member in members if (of := _scored(recipe, member, unit)) is not None}
            for section in sorted(frozenset[str]().union(*scored.values())):
                lacking = [member for member, of in scored.items() if section not in of]
                if lacking:
                    raise HarkenError(
                        f"{name} mixes scores of different sections: of {unit.machine} section {section}, {lacking[0]} "
                        "has too few training clips",
                        file=recipe.name,
                        next_step="Give all the same model: section or machine, or leave the machine out (--machines)",
                    )


def _mixes(recipe: Recipe) -> Iterator[tuple[str, list[str]]]:
    """Names of what mixes scores, and the stages whose scores it mixes."""
    for name, entry in recipe.stages.items():
        sources = [source for source in entry.inputs if stage_class(recipe.stages[source].use).makes == "scores"]
        if len(sources) > 1:
            yield f"stage {name}", sources
    for name, ensemble in recipe.ensembles.items():
        yield f"ensemble {name}", [recipe.systems[system] for system in ensemble.members]


def _scored(recipe: Recipe, stage: str, unit: Unit) -> frozenset[str] | None:
    """Sections of the unit that a stage will score; None where it cannot be known, as others make clips first."""
    entry = recipe.stages[stage]
    cls = stage_class(entry.use)
    inputs = []
    for source in entry.inputs:
        if _makes_clips(recipe, source):
            return None
        if stage_class(recipe.stages[source].use).makes == "scores":
            inputs.append(_scored(recipe, source, unit))
    available = [of for of in inputs if of is not None]
    if len(available) < len(inputs):
        return None
    return cls.scored_sections(recipe.parameters_of(stage), unit.clips, available)


def _makes_clips(recipe: Recipe, stage: str) -> bool:
    entry = recipe.stages[stage]
    return stage_class(entry.use).makes == "clips" or any(_makes_clips(recipe, source) for source in entry.inputs)

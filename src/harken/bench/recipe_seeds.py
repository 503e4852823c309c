"""Seeds of single stages of a recipe: whether they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from harken.core.settings import SettingError


class SeededEntry(Protocol):
    """What a stage of a recipe says, see `StageEntry`."""

    @property
    def use(self) -> str:
        """Its kind."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Stages that it reads."""

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """Which of the recipe's."""

    @property
    def seed(self) -> int | None:
        """With which it runs once."""


def check_seeds(stages: Mapping[str, SeededEntry], name: str, recipe_seeds: Sequence[int]) -> None:
    """SettingError where the seeds of a stage are of no use or not those of the recipe, and where it runs once and
    reads what runs with every seed. All stages that it reads are there."""
    from harken.bench.stages import stage_class

    entry = stages[name]
    key = f"stages.{name}.seeds"
    if entry.seeds is not None:
        if not entry.seeds or len(set(entry.seeds)) < len(entry.seeds) or not set(entry.seeds) <= set(recipe_seeds):
            raise SettingError(
                f"{key} are different ones of the recipe's, at least one", key=key,
                next_step=f"Choose among {', '.join(map(str, recipe_seeds))}",
            )  # fmt: skip
        if entry.seed is not None:
            raise SettingError(f"stage {name} has seeds and a seed", key=key, next_step="Leave one of them out")
        if not _runs_per_seed(stages, name):
            raise SettingError(
                f"stage {name} draws no random numbers, nor does what it reads", key=key,
                next_step="Leave its seeds out",
            )  # fmt: skip
    if entry.seed is not None:
        key = f"stages.{name}.seed"
        if not stage_class(entry.use).seeded:
            raise SettingError(f"stage {name} draws no random numbers", key=key, next_step="Leave its seed out")
        several = next((source for source in entry.inputs if _runs_per_seed(stages, source)), None)
        if several is not None:
            raise SettingError(
                f"stage {name} runs once, and reads {several}, which runs with every seed", key=key,
                next_step=f"Give {several} a seed too",
            )  # fmt: skip


def _runs_per_seed(stages: Mapping[str, SeededEntry], name: str) -> bool:
    """Whether a stage, or what it reads, draws random numbers with the recipe's seeds."""
    from harken.bench.stages import stage_class

    read, waiting = {name}, [name]
    while waiting:
        entry = stages[waiting.pop()]
        if entry.seed is None and stage_class(entry.use).seeded:
            return True
        waiting += [source for source in entry.inputs if source in stages and source not in read]
        read |= {*entry.inputs}
    return False

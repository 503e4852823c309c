"""What a stage is: a function from files to files, and what a recipe may say about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from harken.data.clips import Clip


class Settings(BaseModel):
    """Base of every stage's parameters: no unknown keys, nothing changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Context:
    """What a stage is given besides its parameters.

    clips: those of its machine, in table order; test clips without their labels. inputs: folders of the stages it
    reads, in their order. out: empty folder for what it makes. scratch: kept when the stage is killed. store:
    embeddings of single recordings. workers: processes that it may use. progress: (done, all).
    """

    clips: list[Clip]
    inputs: tuple[Path, ...]
    out: Path
    scratch: Path
    store: Path
    seed: int
    workers: int
    progress: Callable[[int, int], None] = field(default=lambda done, total: None)


class Stage(ABC):
    """A kind of stage. Its files depend on parameters, inputs, clips and seed alone, to the last bit.

    version: raised whenever the same input would give other files. reads: kinds of its inputs, in order.
    seeded: draws random numbers. scores: yields `scores.parquet` of `Scored` rows. spread: uses several processes
    itself; other stages run beside each other. listens: opens the recordings, and not only its inputs.
    """

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    scores: ClassVar[bool] = False
    spread: ClassVar[bool] = False
    listens: ClassVar[bool] = False

    class Parameters(Settings):
        """What a recipe may set."""

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """What else its files depend on, such as the digest of weights. Raises HarkenError where it is missing."""
        return {}

    @classmethod
    @abstractmethod
    def run(cls, parameters: Any, context: Context) -> None:
        """Make the files of the stage in `context.out`."""

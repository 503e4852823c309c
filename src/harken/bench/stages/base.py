"""What a stage is: a function from files to files, and what a recipe may say about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from harken.data.clips import Clip


class Settings(BaseModel):
    """Base of every stage's parameters: no unknown keys, nothing changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Context:
    """What a stage is given besides its parameters.

    clips: those of its machine, in table order, test clips without their labels; of a stage for all machines, their
    training clips. inputs: folders of the stages it reads, in their order. out: empty folder for what it makes.
    scratch: kept when the stage is killed. store: embeddings of single recordings. logs: for people; kept, but no part
    of what it makes. workers: processes that it may use. progress: (done, all).
    """

    clips: list[Clip]
    inputs: tuple[Path, ...]
    out: Path
    scratch: Path
    store: Path
    logs: Path
    seed: int
    workers: int
    progress: Callable[[int, int], None] = field(default=lambda done, total: None)


class Stage(ABC):
    """A kind of stage. Its files depend on parameters, inputs, clips and seed alone, to the last bit.

    version: raised whenever the same input would give other files. makes: what its files are, by which other stages
    know whether they can read them; `scores` are `scores.parquet` of `Scored` rows. reads: what its inputs are, in
    order; any number of the last where `reads_more`. scope: made for each machine, or once for `all` of them.
    seeded: draws random numbers. spread: uses several processes itself; other stages run beside each other.
    listens: opens the recordings, and not only its inputs. shards: has `run_shard`.
    accelerated: uses a GPU where there is one.
    """

    version: ClassVar[int] = 1
    makes: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    reads_more: ClassVar[bool] = False
    scope: ClassVar[Literal["machine", "all"]] = "machine"
    seeded: ClassVar[bool] = False
    spread: ClassVar[bool] = False
    listens: ClassVar[bool] = False
    shards: ClassVar[bool] = False
    accelerated: ClassVar[bool] = False

    class Parameters(Settings):
        """What a recipe may set."""

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """What else its files depend on, such as the digest of weights. Raises HarkenError where it is missing."""
        return {}

    @classmethod
    def peeks(cls, parameters: Any) -> bool:
        """Whether it is given test clips with their labels: what depends on it is named `tuned on test`."""
        return False

    @classmethod
    @abstractmethod
    def run(cls, parameters: Any, context: Context) -> None:
        """Make the files of the stage in `context.out`."""

    @classmethod
    def run_shard(cls, parameters: Any, context: Context, index: int, count: int) -> None:
        """Do one of `count` parts of the work, from 0, where `run` finds it: in `context.store` or `context.scratch`.

        Other parts run beside it, on other machines; `run` does itself what no part has done.
        """
        raise NotImplementedError

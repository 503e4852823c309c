"""The contract of stages: functions from files to files, with their parameters and cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from harken.bench.costs import Cost, PlannedStage
from harken.core.errors import HarkenError
from harken.data.clips import Clip, Payload
from harken.data.labels import ClassTable
from harken.encoders.accelerator import default_device
from harken.encoders.checkpoints import check_named

#: kinds of files that a stage makes and others read
Artefact = Literal[
    "clips",
    "labels",
    "model",
    "embeddings",
    "frames",
    "autoencoder",
    "encoder",
    "separator",
    "scores",
    "conditions",
    "generator",
    "classifier",
    "report",
]


class Settings(BaseModel):
    """Base of every stage's parameters: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Input:
    """An input of a kind of stage: files that another stage has made.

    makes: what they are. optional: the stage also runs without it. many: any number of stages, at least one unless
    optional.
    """

    makes: Artefact
    optional: bool = False
    many: bool = False

    def __str__(self) -> str:
        return ("any number of " if self.many else "") + self.makes + (" (optional)" if self.optional else "")


@dataclass(frozen=True)
class Beside:
    """Another task of the same kind, machine and inputs. scratch: its folder, as `Context.scratch`."""

    parameters: Any
    scratch: Path


@dataclass(frozen=True)
class Context:
    """Clips, inputs and folders of a stage.

    clips: those of its machine, in table order, test clips without their labels; of a stage for all machines, their
    training clips. After them, those of its inputs that are clips (`Clip.recorded` distinguishes them). inputs: by
    name, the folders of the stages it reads, in the recipe's order; see `folder` and `folders`. out: empty folder for
    what it makes. scratch: kept when the stage is killed. store: embeddings of single recordings. logs: for people;
    kept, but no part of what it makes. workers: processes that it may use. progress: (done, all).
    beside: see `Stage.listens_for_others`.
    """

    clips: list[Clip]
    inputs: Mapping[str, tuple[Path, ...]]
    out: Path
    scratch: Path
    store: Path
    logs: Path
    seed: int
    workers: int
    progress: Callable[[int, int], None] = field(default=lambda done, total: None)
    beside: tuple[Beside, ...] = ()

    def folder(self, name: str) -> Path:
        """Folder of a required input of one stage."""
        (folder,) = self.inputs[name]
        return folder

    def folders(self, name: str) -> tuple[Path, ...]:
        """Folders of an optional input, or one of several stages."""
        return self.inputs.get(name, ())


class Stage(ABC):
    """A kind of stage. Its files depend on parameters, inputs, clips and seed alone, to the last bit.

    version: raised whenever the same input would give other files. makes: kind of its files, which decides what stages
    can read them; `scores` are `scores.parquet`, see `Scores`. inputs: by the names of `Context.inputs`. scope: made
    once per `machine`, or once for `all` of them.
    seeded: draws random numbers. spread: uses several processes itself; other stages run in parallel.
    listens: opens the recordings, not only its inputs. shards: has `run_shard`. brief: takes seconds per machine, which
    plans leave out. accelerated: uses a GPU if there is one. from_tests: makes clips of test clips too; with scope
    `all` it then gets them, without labels. payloads: of the clips that its input of clips may hold.
    listens_for_others: tasks that differ in parameters alone are `Context.beside` the first of them, which decodes each
    recording once for all and leaves in their scratch folders what they will find there.
    """

    version: ClassVar[int] = 1
    makes: ClassVar[Artefact]
    inputs: ClassVar[Mapping[str, Input]] = {}
    scope: ClassVar[Literal["machine", "all"]] = "machine"
    seeded: ClassVar[bool] = False
    spread: ClassVar[bool] = False
    listens: ClassVar[bool] = False
    shards: ClassVar[bool] = False
    brief: ClassVar[bool] = False
    accelerated: ClassVar[bool] = False
    from_tests: ClassVar[bool] = False
    payloads: ClassVar[tuple[Payload, ...]] = ("sound",)
    listens_for_others: ClassVar[bool] = False

    class Parameters(Settings):
        """What a recipe may set."""

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """Further dependencies of its files, such as the digest of weights; `parameters`, if some of them change
        nothing, replaces all parameters. HarkenError if weights are missing."""
        return {}

    @classmethod
    def checkpoints(cls, parameters: Any) -> tuple[str, ...]:
        """Weights that it needs, by their names in the catalogue, so that plans can list all that are missing, or as
        files; what is wrong in them is left to `identity`."""
        return ()

    @classmethod
    def check_files(cls, parameters: Any) -> None:
        """Raise WeightsError, before anything runs, for weights that are neither in the catalogue or the cache nor
        files; nothing is read of them. Default: of `checkpoints`."""
        for name in cls.checkpoints(parameters):
            check_named(name)

    @classmethod
    def chosen_here(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of its tasks: decides what a recipe leaves to the machine where the run begins, so that all
        machines of a run do the same. That is the device where it is `auto`: a GPU if there is one."""
        return {**parameters, "device": default_device()} if parameters.get("device") == "auto" else dict(parameters)

    @classmethod
    def uses_test_labels(cls, parameters: Any) -> bool:
        """Whether it gets test clips with their labels: what depends on it is marked `tuned on test`."""
        return False

    @classmethod
    def scored_sections(
        cls, parameters: Any, clips: Sequence[Clip], inputs: Sequence[frozenset[str]]
    ) -> frozenset[str]:
        """Of a stage that makes scores: the sections of a machine that it will score, as far as its clips show before
        any is opened. inputs: those of the scores that it reads. Default: the sections that all of them score,
        or all with test clips."""
        sections = frozenset(clip.section for clip in clips if clip.split == "test")
        return sections.intersection(*inputs)

    @classmethod
    def classes(cls, parameters: Any, clips: Sequence[Clip]) -> ClassTable | None:
        """Of a stage that makes labels: those of these training clips, for plans; None where only `run` can say.

        Raises HarkenError where it would make none.
        """
        return None

    @classmethod
    def expected_clips(
        cls, parameters: Any, clips: Sequence[Clip], inputs: Mapping[str, tuple[Any, ...]]
    ) -> Sequence[Clip]:
        """Of a stage that makes clips: those that it will make of these, for plans of the stages that read them; their
        paths are those of what they are made of. None where only `run` can say, the default. inputs: parameters of the
        stages that it reads, by the name of the input."""
        return ()

    @classmethod
    @abstractmethod
    def run(cls, parameters: Any, context: Context) -> None:
        """Make the files of the stage in `context.out`."""

    @classmethod
    def cost(cls, parameters: Any, planned: PlannedStage) -> Cost | None:
        """The cost of `run`, without running it; None, the default unless `brief`, is printed as unknown by plans.

        Raises HarkenError for a cost that cannot be estimated, such as for a network that cannot be built.
        """
        return Cost() if cls.brief else None

    @classmethod
    def run_shard(cls, parameters: Any, context: Context, index: int, count: int) -> None:
        """Do shard `index` of `count` of the work, where `run` finds it: in `context.store` or `context.scratch`.

        Shards run in parallel, on several machines; `run` does what no shard has done.
        """
        raise NotImplementedError


def match_inputs(kind: str, cls: type[Stage], sources: Sequence[tuple[str, type[Stage]]]) -> dict[str, tuple[str, ...]]:
    """Names of stages by the input of `cls` that each is, by what it makes; the order counts among equals only.

    kind: what a recipe calls `cls`. sources: stages that it is to read, by name. Raises HarkenError, naming them, for
    inputs that are missing, for stages that it has no input for, and where one stage for all machines would have to
    read many for one machine each.
    """
    matched: dict[str, list[str]] = {name: [] for name in cls.inputs}
    for source, made_by in sources:
        free = [
            name
            for name, declared in cls.inputs.items()
            if declared.makes == made_by.makes and (declared.many or not matched[name])
        ]
        if not free:
            raise HarkenError(
                f"{source} ({made_by.makes}) is not an input of a {kind} stage", next_step=f"It reads {_listed(cls)}"
            )
        if cls.scope == "all" and made_by.scope == "machine" and not cls.inputs[free[0]].many:
            raise HarkenError(
                f"{source} is made for each machine, but a {kind} stage is made once for all and reads it once",
                next_step=f"Give a stage that makes {made_by.makes} once",
            )
        matched[free[0]].append(source)
    missing = [str(declared) for name, declared in cls.inputs.items() if not (declared.optional or matched[name])]
    if missing:
        given = ", ".join(source for source, _ in sources) or "nothing"
        raise HarkenError(
            f"a {kind} stage needs {', '.join(missing)}, it reads {given}",
            next_step="Name stages that make them under from",
        )
    return {name: tuple(names) for name, names in matched.items() if names}


def _listed(cls: type[Stage]) -> str:
    return ", ".join(map(str, cls.inputs.values())) or "no other stage"
